"""Everything heavy that a training run needs, imported once for processes that are forked from this one."""

from __future__ import annotations

import importlib

from qup.training.ranks import warm_deepspeed

WARM = ("transformers.models.llama.modeling_llama", "qup.training.loop")
"""What a training run imports beside DeepSpeed that takes seconds."""


def warm_up() -> None:
    """Starts no thread."""
    import torch

    torch.set_num_threads(1)
    warm_deepspeed()
    for name in WARM:
        importlib.import_module(name)
