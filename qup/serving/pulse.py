"""Whether a server still works: by its answers, and by the tokens that its engines make."""

from __future__ import annotations

import re

PROBES = 3
"""Probes without an answer, in a row, before a server counts as hung."""
_METRIC = re.compile(
    r'^vllm:(num_requests_running|generation_tokens_total|prompt_tokens_total)\{[^}]*engine="(\d+)"[^}]*\} (\S+)', re.MULTILINE
)

Counts = dict[str, tuple[float, float]]
"""By engine: requests that run, and tokens read and made so far."""


def read_counts(metrics: str) -> Counts:
    """Counts out of the text of vLLM's /metrics; empty where it tells none."""
    running: dict[str, float] = {}
    tokens: dict[str, float] = {}
    for name, engine, value in _METRIC.findall(metrics):
        into = running if name == "num_requests_running" else tokens
        into[engine] = into.get(engine, 0.0) + float(value)
    return {engine: (count, tokens.get(engine, 0.0)) for engine, count in running.items()}


class Pulse:
    """The course of one server's probes; both methods say why it counts as hung, or "" where it does not."""

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._missed = 0
        self._still: dict[str, tuple[tuple[float, float], float]] = {}

    def felt(self, counts: Counts, now: float) -> str:
        """It answered. An engine that runs requests and makes no token for so long is stopped, though the server answers."""
        self._missed = 0
        before = {engine: known for engine, known in self._still.items() if counts.get(engine) == known[0]}
        self._still = {engine: before.get(engine, (count, now)) for engine, count in counts.items()}
        stopped = [engine for engine, ((running, _), since) in self._still.items() if running and now - since >= self._stall_s]
        return f"engine {stopped[0]} made no token for {self._stall_s:g} s (vllm.stall_s) while requests ran" if stopped else ""

    def missed(self, error: BaseException) -> str:
        """It did not answer."""
        self._missed += 1
        return f"it did not answer {PROBES} probes of its health ({error})" if self._missed >= PROBES else ""
