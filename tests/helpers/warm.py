"""Everything heavy that a training run needs, imported once for processes that are forked from this one."""

from __future__ import annotations

import importlib

from qup.training.ranks import quiet_deepspeed

WARM = ("deepspeed.runtime.zero.muon.muon_optimizer", "transformers.models.llama.modeling_llama", "qup.training.loop")
"""What a training run imports that takes seconds; the first is DeepSpeed's own, met when an engine is built."""


def warm_up() -> None:
    """Starts no thread."""
    import torch

    torch.set_num_threads(1)
    quiet_deepspeed()
    for name in WARM:
        importlib.import_module(name)
