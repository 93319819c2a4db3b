"""Trying out on a GPU how many rows go through the model at once, before the first step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from qup.errors import InputError
from qup.training.batches import Layouter, lay_out, tensors_of
from qup.training.engine import Engine
from qup.training.examples import Example
from qup.training.packing import align
from qup.training.sizes import cuda_rows


def rows_that_fit(engine: Engine, length: int, vocabulary: int, fill: int, *, packing: bool, flat: bool, most: Callable[[int], int]) -> int:
    """Rows of `length` tokens a forward pass, the same on every rank. With `packing` a row is tried with two examples, masks and all.

    `most` gives the largest of all ranks' numbers; every measurement goes through it, so that ranks decide alike and
    none starts a collective that the others have no part in. Raises InputError where not even one row fits.
    """

    def peak(rows: float) -> int:
        n, tokens = max(1, int(rows)), align(length if rows >= 1 else length // 2)
        share = tokens // 2 if packing else tokens
        batch = [Example(0, "", (np.arange(share) % vocabulary).astype(np.int32), 1, False)] * (n * tokens // share)
        step = lay_out(batch, Layouter(1, n, True, tokens, fixed=True))
        torch.cuda.reset_peak_memory_stats()
        engine.rehearse(next(tensors_of(batch, step, 0, fill, flat)))
        return most(int(torch.cuda.max_memory_allocated()))

    whole = int(torch.cuda.get_device_properties(engine.device).total_memory)
    try:
        return cuda_rows(peak, -most(-whole) - most(engine.bytes_to_come))
    except torch.OutOfMemoryError:
        raise InputError(
            f"trainer.micro_batch=auto: not even one row of {length} tokens fits into the GPU's {whole / 2**30:.0f} GiB; "
            "trainer.activation_checkpointing=true, zero=stage3, zero=stage3_offload and a smaller trainer.max_length take less"
        ) from None
