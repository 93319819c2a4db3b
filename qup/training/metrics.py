"""The log of a run, step by step, and what its manifest says of it."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}
"""Dense bfloat16 peak by device name, as the makers state it; the longest name that fits counts."""


class StepLog:
    """steps.jsonl: one line an optimizer step, flushed as it is written. Only rank 0 has one."""

    def __init__(self, path: Path, done: int) -> None:
        """Goes on behind step `done`; later lines, and a torn last one, are taken away, so that no step is there twice."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_steps(path) if line["step"] <= done]
        beside = path.with_name(f".{path.name}")
        beside.write_text("".join(_line(entry) for entry in kept), encoding="utf-8")
        beside.replace(path)
        self.stream: TextIO = path.open("a", encoding="utf-8")

    def append(self, entry: Mapping[str, Any]) -> None:
        self.stream.write(_line(entry))
        self.stream.flush()

    def close(self) -> None:
        self.stream.close()


def _line(entry: Mapping[str, Any]) -> str:
    plain = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in entry.items()}
    return json.dumps(plain) + "\n"


def read_steps(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a steps.jsonl; [] where there is none."""
    if not path.exists():
        return []
    steps = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            steps.append(json.loads(line))
        except ValueError:
            break
    return steps


def token_mean(steps: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Mean of a per-step figure weighted by target tokens, over the steps that have it."""
    counted = [(step[name], step["targets"]) for step in steps if step[name] is not None and not step["skipped"]]
    tokens = sum(n for _, n in counted)
    return math.fsum(value * n for value, n in counted) / tokens if tokens else None


def summarise(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of a finished run that do not depend on how fast it ran."""
    edge = max(1, math.ceil(0.05 * len(steps)))
    tokens, computed, rows = (sum(step[name] for step in steps) for name in ("tokens", "computed", "rows"))
    return {
        "steps": len(steps),
        "target_tokens": sum(step["targets"] for step in steps),
        "train_nll_first": token_mean(steps[:edge], "nll"),
        "train_nll_last": token_mean(steps[-edge:], "nll"),
        "train_p_last": token_mean(steps[-edge:], "p"),
        "skipped_steps": sum(bool(step["skipped"]) for step in steps),
        "useful_tokens": tokens / computed if computed else None,
        "rows": rows,
        "row_tokens": computed / rows if rows else None,
    }


def timings(steps: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    """Figures of a finished run that depend on the machine. The first step, which warms up, is left out of the rates."""
    measured = steps[1:] or steps
    busy = sum(step["seconds"] for step in measured)
    mfu = [step["mfu"] for step in measured if step.get("mfu") is not None]
    return {
        "seconds": seconds,
        "step_seconds": sum(step["seconds"] for step in steps),
        "tokens_per_s": sum(step["tokens"] for step in measured) / busy if busy else None,
        "memory_bytes": max((step["memory"] for step in steps), default=0),
        "mfu": sum(mfu) / len(mfu) if mfu else None,
    }


def peak_memory(device: str) -> int:
    """Most bytes this process has held: on the GPU where it trains on one, else resident."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_flops(device: str) -> float | None:
    """Peak of the device in FLOP/s, where it is known."""
    if not device.startswith("cuda"):
        return None
    import torch

    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in sorted(PEAK_FLOPS.items(), key=lambda item: -len(item[0])) if part in name), None)


def model_flops(
    body_parameters: int, head_parameters: int, layers: int, hidden: int, lengths: Sequence[int], targets: int, frozen: bool = False
) -> float:
    """FLOPs that one step's useful tokens need, forward and backward, causal attention counted by half (Chowdhery et al. 2022).

    `body_parameters` are those that every token is multiplied by, which leaves out a table of embeddings; `hidden` is
    the width of attention, all heads together. `frozen` weights need no gradient of their own, a third of the work.
    """
    tokens = sum(lengths)
    weights = (4.0 if frozen else 6.0) * (body_parameters * tokens + head_parameters * targets)
    return weights + 6.0 * layers * hidden * sum(n * n for n in lengths)


def attention_width(config: Any) -> int:
    """Heads times head size, of a text model's configuration."""
    return int(config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads))
