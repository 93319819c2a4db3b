"""Each step of a trace scored given the prompt and the last few steps alone, as local log-probability wants it.

Of one prompt all windows lie in one row: the prompt's states are computed once, each window sees them and itself. Where a
model does not take such a mask, each window is a sequence of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qup.measures.lalp import seen
from qup.scoring.nll import Encoded, NllScorer, token_scores
from qup.scoring.packing import pack

ROW = {"cpu": 384, "cuda": 2048}
"""Tokens of a row, by device type: a window sees its row's square, masked."""


@dataclass(frozen=True)
class Window:
    """Step number `step` of a trace: the response's tokens from `start` on are read, those from `begin` to `end` scored."""

    trace: int
    step: int
    start: int
    begin: int
    end: int


def windows(trace: int, first_S: Sequence[int] | np.ndarray, tokens: int, window: float) -> list[Window]:
    """One a step; the first step begins at token 0. `tokens`: the response's, without its stop token."""
    if not tokens:
        return []
    begins = [0, *(int(first) for first in first_S[1:])]
    ends = [*begins[1:], tokens]
    return [
        Window(trace, step, begins[step - seen(step, window)], begin, end)
        for step, (begin, end) in enumerate(zip(begins, ends, strict=True))
    ]


class WindowScorer:
    """NLL of every token given its window, under a causal language model."""

    def __init__(self, model: Any, *, batch_tokens: int) -> None:
        self.plain = NllScorer(model, batch_tokens=batch_tokens, rank_cap=1, top=1)
        self.row = min(batch_tokens, ROW.get(self.plain.device.type, ROW["cpu"]))
        self.masks = self._probe()

    @torch.inference_mode()
    def score(self, traces: Sequence[Encoded], firsts: Sequence[np.ndarray], window: float) -> list[list[np.ndarray]]:
        """For each trace, for each step, NLL of its tokens in nats; the stop token is no part of it."""
        cut = [
            windows(n, first_S, len(trace.response_ids) - 1, window) for n, (trace, first_S) in enumerate(zip(traces, firsts, strict=True))
        ]
        found: list[list[np.ndarray]] = [[np.zeros(0, np.float32)] * len(one) for one in cut]
        if not self.masks:
            members = [one for whole in cut for one in whole]
            alone = [
                Encoded(trace.prompt_ids + trace.response_ids[one.start : one.begin], trace.response_ids[one.begin : one.end])
                for one in members
                for trace in (traces[one.trace],)
            ]
            for one, scored in zip(members, self.plain.score(alone), strict=True):
                found[one.trace][one.step] = scored.nll_T
            return found
        by_prompt: dict[tuple[int, ...], list[Window]] = {}
        for trace, whole in zip(traces, cut, strict=True):
            by_prompt.setdefault(trace.prompt_ids, []).extend(whole)
        for prompt, members in by_prompt.items():
            room = max(self.row - len(prompt), 1)
            for batch in pack([one.end - one.start - 1 for one in members], room):
                chosen = [members[index] for index in batch]
                for one, nll_T in zip(chosen, self._row(prompt, chosen, traces), strict=True):
                    found[one.trace][one.step] = nll_T
        return found

    def _row(self, prompt: tuple[int, ...], batch: Sequence[Window], traces: Sequence[Encoded]) -> list[np.ndarray]:
        """One forward pass: the prompt, then every window without its last token, which is a target only."""
        device = self.plain.device
        ids, positions, owners = list(prompt), list(range(len(prompt))), [0] * len(prompt)
        rows: list[int] = []
        targets: list[int] = []
        for number, one in enumerate(batch, 1):
            response = traces[one.trace].response_ids
            at = len(ids) - one.start
            read = response[one.start : one.end - 1]
            ids += read
            positions += range(len(prompt), len(prompt) + len(read))
            owners += [number] * len(read)
            rows += [len(prompt) - 1 if place == one.start else at + place - 1 for place in range(one.begin, one.end)]
            targets += response[one.begin : one.end]
        states = self._states(torch.tensor(ids, device=device), torch.tensor(positions, device=device), torch.tensor(owners, device=device))
        nll = token_scores(
            states[torch.tensor(rows, device=device)], self.plain._head, self.plain.vocabulary, torch.tensor(targets, device=device), 1, 1
        ).nll_T
        return np.split(nll.cpu().numpy(), np.cumsum([one.end - one.begin for one in batch])[:-1])

    def _states(self, ids: torch.Tensor, positions: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        """Last hidden states [T, H]: a token sees the prompt (owner 0) and its own window, up to itself."""
        order = torch.arange(len(ids), device=ids.device)
        seen_TT = (order[:, None] >= order) & ((owners == 0) | (owners[:, None] == owners))
        dtype = self.plain.model.dtype
        mask = torch.zeros(seen_TT.shape, dtype=dtype, device=ids.device).masked_fill_(~seen_TT, torch.finfo(dtype).min)
        body = self.plain.model.base_model
        found = body(input_ids=ids[None], position_ids=positions[None], attention_mask=mask[None, None], use_cache=False)
        return found.last_hidden_state[0]  # type: ignore[no-any-return]

    @torch.inference_mode()
    def _probe(self) -> bool:
        """Whether this architecture honours such a mask."""
        if not self.plain.splits or str(getattr(self.plain.model.config, "_attn_implementation", "")).startswith("flash"):
            return False
        ids = torch.arange(16, device=self.plain.device) % min(self.plain.vocabulary, 16)
        positions = torch.cat([torch.arange(6), torch.arange(6, 11), torch.arange(6, 11)]).to(ids.device)
        owners = torch.tensor([0] * 6 + [1] * 5 + [2] * 5, device=ids.device)
        alone = self.plain._hidden(torch.cat([ids[:6], ids[11:]]), None)
        expected = self.plain._head(alone).float()
        try:
            together = self._states(ids, positions, owners)
        except (TypeError, ValueError, RuntimeError):
            return False
        bound = (1e-4 if self.plain.model.dtype == torch.float32 else 5e-2) * (float(expected.abs().max()) or 1.0)
        found = self.plain._head(torch.cat([together[:6], together[11:]])).float()
        return float((found - expected).abs().max()) <= bound
