"""NLL and rank of every response token in one pass, without logits of all positions at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qup.scoring.packing import CPU_ROW, pack

CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 512 << 20}
"""Logits held at once, in fp32, by device type."""

GPU_ROW = 2048
"""Row length on a GPU without a variable-length attention kernel."""


@dataclass(frozen=True)
class Encoded:
    """One trace as the student reads it: prompt, and response with its stop token."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


@dataclass(frozen=True)
class Scored:
    """Of each response token, the stop token included: nats, and 1 + the number of logits above the target's, clipped."""

    nll_T: np.ndarray
    rank_T: np.ndarray


def token_scores(
    hidden_TH: torch.Tensor, head: Callable[[torch.Tensor], torch.Tensor], vocabulary: int, target_T: torch.Tensor, cap: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """NLL (fp32) and clipped rank (int64) of each target; `head` gives logits, of which CHUNK_BYTES are held at once."""
    chunk = max(1, CHUNK_BYTES.get(hidden_TH.device.type, CHUNK_BYTES["cpu"]) // (4 * vocabulary))
    nll_T = torch.empty(len(target_T), dtype=torch.float32, device=hidden_TH.device)
    rank_T = torch.empty(len(target_T), dtype=torch.int64, device=hidden_TH.device)
    for start in range(0, len(target_T), chunk):
        part = slice(start, start + chunk)
        logits = head(hidden_TH[part]).float()
        target = logits.gather(1, target_T[part, None])
        rank_T[part] = (logits > target).sum(1).add_(1).clamp_(max=cap)
        top = logits.amax(1, keepdim=True)
        total = logits.sub_(top).exp_().sum(1)
        nll_T[part] = total.log_().sub_((target - top).squeeze(1))
    return nll_T, rank_T


class NllScorer:
    """Scores traces under a causal language model; identical traces of one call are computed once."""

    def __init__(self, model: Any, *, batch_tokens: int, rank_cap: int) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.cap = rank_cap
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
        for members in pack(lengths, self.row if self.packs else 0):
            batch = [unique[index] for index in members]
            found.update(zip(batch, self._row(batch), strict=True))
        return [found[trace] for trace in traces]

    def _row(self, batch: Sequence[Encoded]) -> list[Scored]:
        """One forward pass over sequences side by side; the last token of each is a target only."""
        full = [trace.prompt_ids + trace.response_ids for trace in batch]
        ids = torch.tensor([token for row in full for token in row[:-1]], device=self.device)
        target = torch.tensor([token for trace in batch for token in trace.response_ids], device=self.device)
        ends = np.cumsum([len(row) - 1 for row in full])
        rows = torch.from_numpy(
            np.concatenate([np.arange(end - len(trace.response_ids), end) for end, trace in zip(ends, batch, strict=True)])
        )
        if self.splits:
            positions = torch.cat([torch.arange(len(row) - 1) for row in full]).to(self.device) if len(full) > 1 else None
            hidden = self._hidden(ids, positions)[rows.to(self.device)]
            nll, rank = token_scores(hidden, self._head, self.vocabulary, target, self.cap)
        else:
            logits = self.model(input_ids=ids[None], use_cache=False).logits[0][rows.to(self.device)]
            nll, rank = token_scores(logits, lambda part: part.clone(), self.vocabulary, target, self.cap)
        parts = np.cumsum([len(trace.response_ids) for trace in batch])[:-1]
        nlls, ranks = np.split(nll.cpu().numpy(), parts), np.split(rank.cpu().numpy().astype(np.int32), parts)
        return [Scored(nll_T, rank_T) for nll_T, rank_T in zip(nlls, ranks, strict=True)]
