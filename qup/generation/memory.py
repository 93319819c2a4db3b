"""Whether the keys and values of so many sequences fit beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qup.errors import InputError
from qup.generation.records import Clamped

COPIES = 1.25
"""A block of rows is copied as it grows; there are four or so."""


def row_bytes(config: Any, tokens: int, itemsize: int) -> int:
    """Bytes of keys and values of one sequence of `tokens`, over all layers."""
    text = config.get_text_config()
    groups = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * groups * dim * itemsize * tokens


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device; None where it can't be told."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def check_rows(model: Any, clamped: Clamped, rows: int) -> None:
    """Raises InputError where `rows` sequences as long as they may get don't fit, saying how many do."""
    parameter = next(model.parameters())
    free = free_bytes(parameter.device)
    lengths = [len(request.prompt_ids) + room for request, room in zip(clamped.requests, clamped.room, strict=True)]
    responses = sum(request.n for request in clamped.requests)
    try:
        each = int(COPIES * row_bytes(model.config, max(lengths, default=0), parameter.element_size()))
    except AttributeError:  # another kind of memory than keys and values
        return
    if free is None or min(rows, responses) * each <= free:
        return
    raise InputError(
        f"sampling.rows={rows}: keys and values of so many responses of up to {max(lengths)} tokens take {min(rows, responses) * each / 2**30:.1f} GiB, "
        f"and {free / 2**30:.1f} GiB are free beside the weights; {free // each} rows fit, or choose backend=vllm, which pages them"
    )
