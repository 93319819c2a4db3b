"""How many rows go through the model at once, and how long a packed row may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qup.config.schema import Trainer
from qup.errors import InputError
from qup.training.examples import Example
from qup.training.packing import Cost, align

CPU_ROW = 512
"""A packed row costs its length squared in attention; on CPU longer ones lose more than they fill."""
CUDA_ROW = 4096
CPU_TOKENS = 4096
"""More tokens a forward pass gain nothing on CPU."""
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def longest_row(trainer: Trainer, examples: Sequence[Example], cuda: bool) -> int:
    """Upper bound of a row's length; `trainer.row_tokens` where it is set. InputError where an example is longer than that."""
    longest = max(example.length for example in examples)
    if not trainer.packing:
        return align(longest)
    if trainer.row_tokens is not None:
        if longest > trainer.row_tokens:
            raise InputError(
                f"trainer.row_tokens={trainer.row_tokens}: the longest example has {longest} tokens; at least that many are valid"
            )
        return trainer.row_tokens
    return align(max(longest, CUDA_ROW if cuda else CPU_ROW))


def row_cost(config: Any, body_parameters: int, flat: bool) -> Cost:
    """What a row costs: its tokens through the weights, and, unless attention knows the examples' borders, all pairs of them."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    pairs = 0.0 if flat else 2.0 * text.num_hidden_layers * text.hidden_size
    return Cost(float(body_parameters), pairs)


def memory_bytes(text: str) -> int:
    """Bytes of a memory setting such as 2G or 512M."""
    return int(float(text[:-1]) * UNITS[text[-1].upper()]) if text[-1:].upper() in UNITS else int(text) << 20


def cpu_rows(config: Any, parameters: int, length: int, item_bytes: int, memory: int) -> int:
    """Rows a forward pass on CPU: what half the memory left beside weights, gradients and moments holds, by count of activations.

    A function of the settings alone, so that a run that starts again takes the same.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    inner = getattr(text, "intermediate_size", 4 * text.hidden_size)
    a_token = text.num_hidden_layers * (14 * text.hidden_size + 4 * inner) * item_bytes
    left = max(0, memory - parameters * 16)
    tokens = min(CPU_TOKENS, left // 2 // max(a_token, 1))
    return max(1, tokens // length)


def cuda_rows(peak: Callable[[float], int], total: int, share: float = 0.9, most: int = 256) -> int:
    """Rows a forward pass on a GPU: memory is measured at one row and at two, and a line drawn to `share` of `total` bytes.

    `peak(rows)` runs forward and backward over so many of the longest rows, ½ for half of one, and returns the most
    bytes held. Two rows are tried only where half a row and one say that they fit: running out of memory half way
    through a backward pass would leave the engine's buffers in disorder.
    """
    room = share * total
    peak(0.5)  # what is held once and for all (gradients, workspaces) is there from here on
    half, one = peak(0.5), peak(1)
    if one + 2 * (one - half) > room:
        return 1
    a_row = max(1, peak(2) - one)
    return int(max(1, min(most, (room - one) // a_row + 1)))
