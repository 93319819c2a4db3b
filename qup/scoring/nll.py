"""All token statistics of traces in one forward pass, without logits of all positions at once.

Of every response token: NLL, rank, Brier score. Of the question's tokens: NLL. Of both: means of a module's activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qup.errors import InputError
from qup.scoring.packing import CPU_ROW, pack

CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}
"""Logits held at once, in fp32, by device type."""

GPU_ROW = 2048
"""Row length on a GPU without a variable-length attention kernel."""


BLOCK = 64
"""Entries of the vocabulary among which the largest is found first, on the way to the likeliest tokens."""


@dataclass(frozen=True)
class Encoded:
    """One trace as the student reads it: prompt, and response with its stop token."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    question: tuple[int, int] = (0, 0)
    """The prompt's tokens that are the question's own: from the first up to the second."""


@dataclass(frozen=True)
class Question:
    """What a prompt gives, the same for all of its traces."""

    nll: float
    """Nats of the question's tokens, summed; a token without one before it has none."""
    tokens: int
    mean_I: torch.Tensor | None
    """Mean of the question tokens' normalised activations; None where none are recorded."""


@dataclass(frozen=True)
class Scored:
    """Of each response token, the stop token included: nats; 1 + the number of logits above the target's, clipped; Brier scores."""

    nll_T: np.ndarray
    rank_T: np.ndarray
    brier_T: np.ndarray
    brier_top_T: np.ndarray
    question_nll: float = float("nan")
    question_tokens: int = 0
    aa: float = float("nan")
    """‖μ_A‖², the stop token left out; NaN where no activations are recorded, or no token is there."""
    aq: float = float("nan")
    """μ_A · μ_Q."""


@dataclass(frozen=True)
class TokenScores:
    """Axis T: targets. fp32, ranks int64."""

    nll_T: torch.Tensor
    rank_T: torch.Tensor
    brier_T: torch.Tensor
    brier_top_T: torch.Tensor


def token_scores(
    hidden_TH: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    vocabulary: int,
    target_T: torch.Tensor,
    cap: int,
    top: int = 50,
) -> TokenScores:
    """Scores of each target; `head` gives logits, of which CHUNK_BYTES are held at once.

    Ranks are clipped at `cap`. A Brier score is 1 − 2p(y) + Σp²; `brier_top` takes the `top` likeliest tokens alone,
    renormalised, p(y) being 0 where the target is none of them.
    """
    chunk = max(1, CHUNK_BYTES.get(hidden_TH.device.type, CHUNK_BYTES["cpu"]) // (4 * vocabulary))
    nll_T, brier_T, brier_top_T = (torch.empty(len(target_T), dtype=torch.float32, device=hidden_TH.device) for _ in range(3))
    rank_T = torch.empty(len(target_T), dtype=torch.int64, device=hidden_TH.device)
    for start in range(0, len(target_T), chunk):
        part = slice(start, start + chunk)
        logits = head(hidden_TH[part]).float()
        target = logits.gather(1, target_T[part, None])
        best = largest(logits, max(cap, top))
        rank_T[part] = (best > target).sum(1).add_(1).clamp_(max=cap)
        highest = logits.amax(1, keepdim=True)
        likely = (best[:, :top] - highest).exp_()
        total = logits.sub_(highest).exp_().sum(1)
        squares = torch.linalg.vector_norm(logits, dim=1).square_()
        above = (target - highest).squeeze(1)
        hit = above.exp()
        brier_T[part] = 1 - 2 * hit / total + squares / total**2
        top_total = likely.sum(1)
        within = (target >= best[:, min(top, best.shape[1]) - 1, None]).squeeze(1)
        brier_top_T[part] = 1 - 2 * hit * within / top_total + likely.square().sum(1) / top_total**2
        nll_T[part] = total.log_().sub_(above)
    return TokenScores(nll_T, rank_T, brier_T, brier_top_T)


def largest(logits_TV: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` highest of each row in descending order, all of them where there are fewer.

    They lie in the blocks whose maxima are highest, so that only those need sorting.
    """
    _length, vocabulary = logits_TV.shape
    blocks = vocabulary // BLOCK
    if count * 2 > blocks:
        return logits_TV.topk(min(count, vocabulary), dim=1).values
    within = logits_TV[:, : blocks * BLOCK].unflatten(1, (blocks, BLOCK))
    chosen = within.amax(2).topk(count, dim=1, sorted=False).indices
    candidates = within.gather(1, chosen[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
    return torch.cat([candidates, logits_TV[:, blocks * BLOCK :]], 1).topk(count, dim=1).values


def unit_sum(activation_TI: torch.Tensor) -> torch.Tensor:
    """Sum over tokens of activations, each normalised to length 1; fp32 [I]. A token of zeros counts as zeros."""
    total = torch.zeros(activation_TI.shape[1], dtype=torch.float32, device=activation_TI.device)
    for start in range(0, len(activation_TI), 1024):
        part = activation_TI[start : start + 1024].float()
        total += (1 / torch.linalg.vector_norm(part, dim=1).clamp_min(1e-12)) @ part
    return total


class NllScorer:
    """Scores traces under a causal language model; identical traces of one call are computed once.

    `activation` names the module whose output is averaged, the last of that name in the model; InputError where none is.
    """

    def __init__(self, model: Any, *, batch_tokens: int, rank_cap: int, top: int = 50, activation: str | None = None) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.cap, self.top = rank_cap, top
        self.module = None if activation is None else last_module(model, activation)
        self.row = min(batch_tokens, self._row_limit())
        self.vocabulary = model.get_output_embeddings().weight.shape[0]
        self.packs, self.splits = self._probe()

    def _row_limit(self) -> int:
        if self.device.type == "cpu":
            return CPU_ROW
        flash = str(getattr(self.model.config, "_attn_implementation", "")).startswith("flash")
        return 1 << 30 if flash else GPU_ROW

    @torch.inference_mode()
    def _probe(self) -> tuple[bool, bool]:
        """Whether packed rows keep their sequences apart in this architecture, and whether its head can be called by itself."""
        ids = torch.arange(24, device=self.device) % min(self.vocabulary, 24)
        alone = [self.model(input_ids=part[None], use_cache=False).logits[0].float() for part in (ids[:14], ids[14:])]
        expected = torch.cat(alone)
        scale = float(expected.abs().max()) or 1.0
        bound = (1e-4 if expected.dtype == self.model.dtype else 5e-2) * scale
        positions = torch.cat([torch.arange(14), torch.arange(10)]).to(self.device)
        packed = self._hidden(ids, positions)
        splits = packed is not None and self._agree(
            torch.cat([self._hidden(ids[:14], None), self._hidden(ids[14:], None)]), expected, bound
        )
        packs = splits and packed is not None and self._agree(packed, expected, bound)
        return packs, splits

    def _agree(self, hidden: torch.Tensor | None, expected: torch.Tensor, bound: float) -> bool:
        return hidden is not None and float((self._head(hidden).float() - expected).abs().max()) <= bound

    def _hidden(self, ids: torch.Tensor, positions: torch.Tensor | None) -> Any:
        """Last hidden states [T, H] of one row; None where the model has no body to be called by itself."""
        body = getattr(self.model, "base_model", None)
        if body is None or body is self.model:
            return None
        extra = {} if positions is None else {"position_ids": positions[None]}
        return body(input_ids=ids[None], use_cache=False, **extra).last_hidden_state[0]

    def _head(self, hidden: torch.Tensor) -> torch.Tensor:
        config = self.model.config
        logits = self.model.get_output_embeddings()(hidden)
        if scaling := getattr(config, "logits_scaling", None):
            logits = logits / scaling
        if scale := getattr(config, "logit_scale", None):
            logits = logits * scale
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        return logits

    @torch.inference_mode()
    def score(self, traces: Sequence[Encoded]) -> list[Scored]:
        """Scores in the order given; ValueError for a prompt without tokens, after which nothing can be predicted."""
        unique = list(dict.fromkeys(traces))
        if any(not trace.prompt_ids for trace in unique):
            raise ValueError("a prompt has no token")
        lengths = [len(trace.prompt_ids) + len(trace.response_ids) - 1 for trace in unique]
        found: dict[Encoded, Scored] = {}
        questions: dict[tuple[Any, ...], Question] = {}
        for members in pack(lengths, self.row if self.packs else 0):
            batch = [unique[index] for index in members]
            found.update(zip(batch, self._row(batch, questions), strict=True))
        return [found[trace] for trace in traces]

    def _row(self, batch: Sequence[Encoded], questions: dict[tuple[Any, ...], Question]) -> list[Scored]:
        """One forward pass over sequences side by side; the last token of each is a target only. Adds to `questions`."""
        full = [trace.prompt_ids + trace.response_ids for trace in batch]
        ids = torch.tensor([token for row in full for token in row[:-1]], device=self.device)
        target = torch.tensor([token for trace in batch for token in trace.response_ids], device=self.device)
        starts = np.cumsum([0, *(len(row) - 1 for row in full)]).tolist()
        rows = np.concatenate([np.arange(end - len(trace.response_ids), end) for end, trace in zip(starts[1:], batch, strict=True)])
        with self._recorded() as activations:
            if self.splits:
                positions = torch.cat([torch.arange(len(row) - 1) for row in full]).to(self.device) if len(full) > 1 else None
                states, head = self._hidden(ids, positions), self._head
            else:
                states, head = self.model(input_ids=ids[None], use_cache=False).logits[0], torch.Tensor.clone
        activation = activations[0].flatten(0, -2) if activations else None
        found = token_scores(states[torch.from_numpy(rows).to(self.device)], head, self.vocabulary, target, self.cap, self.top)
        for start, trace in zip(starts, batch, strict=False):
            known = (trace.prompt_ids, trace.question)
            if known not in questions:
                questions[known] = self._question(trace, states[start:], head, None if activation is None else activation[start:])
        parts = np.cumsum([len(trace.response_ids) for trace in batch])[:-1]
        nlls, ranks, briers, tops = (
            np.split(array.cpu().numpy(), parts) for array in (found.nll_T, found.rank_T.int(), found.brier_T, found.brier_top_T)
        )
        scored = []
        for index, trace in enumerate(batch):
            question = questions[trace.prompt_ids, trace.question]
            own = None if activation is None else activation[starts[index] + len(trace.prompt_ids) : starts[index + 1]]
            means = products(own, question.mean_I)
            scored.append(Scored(nlls[index], ranks[index], briers[index], tops[index], question.nll, question.tokens, *means))
        return scored

    @contextmanager
    def _recorded(self) -> Iterator[list[torch.Tensor]]:
        """The module's outputs of the passes within."""
        outputs: list[torch.Tensor] = []
        if self.module is None:
            yield outputs
            return
        handle = self.module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        try:
            yield outputs
        finally:
            handle.remove()

    def _question(
        self, trace: Encoded, states: torch.Tensor, head: Callable[[torch.Tensor], torch.Tensor], activation: torch.Tensor | None
    ) -> Question:
        first, stop = trace.question
        mean = None if activation is None or stop <= first else unit_sum(activation[first:stop]) / (stop - first)
        first = max(first, 1)
        if stop <= first:
            return Question(float("nan"), 0, mean)
        target = torch.tensor(trace.prompt_ids[first:stop], device=self.device)
        nll = token_scores(states[first - 1 : stop - 1], head, self.vocabulary, target, 1, 1).nll_T
        return Question(float(nll.double().sum()), stop - first, mean)


def products(own_TI: torch.Tensor | None, question_I: torch.Tensor | None) -> tuple[float, float]:
    """‖μ_A‖² and μ_A · μ_Q; NaN where one is missing."""
    if own_TI is None or not len(own_TI):
        return float("nan"), float("nan")
    mean = (unit_sum(own_TI) / len(own_TI)).double()
    return float(mean @ mean), float("nan") if question_I is None else float(mean @ question_I.double())


def last_module(model: Any, name: str) -> Any:
    """The last module of a model whose name ends in `name`; InputError lists what the last block has."""
    named = [(path, module) for path, module in model.named_modules() if path == name or path.endswith(f".{name}")]
    if named:
        return named[-1][1]
    linear = [path for path, module in model.named_modules() if hasattr(module, "weight") and getattr(module.weight, "ndim", 0) == 2]
    output = model.get_output_embeddings()
    inner = [path for path in linear if model.get_submodule(path) is not output]
    block = inner[-1].rsplit(".", 2)[0] if inner else ""
    there = [path.removeprefix(f"{block}.") for path in inner if path.startswith(f"{block}.")] or inner[-4:]
    raise InputError(
        f"perplexity.activation={name}: {type(model).__name__} has no such module; its last block has {', '.join(dict.fromkeys(there))}. "
        "Name the one that widens the MLP, or leave measure scas out"
    )
