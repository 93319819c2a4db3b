"""What training is measured with: clock, memory, random models and examples."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY = 151_936


def resident() -> int:
    """Bytes of this process's memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize()


@contextmanager
def peak_memory(found: dict[str, int], device: str = "cpu") -> Any:
    """Most bytes held inside the block: sampled on CPU every few milliseconds, counted by the allocator on a GPU."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        yield
        found["peak"] = torch.cuda.max_memory_allocated()
        return
    ended = threading.Event()
    found["peak"] = resident()

    def sample() -> None:
        while not ended.wait(0.003):
            found["peak"] = max(found["peak"], resident())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def llama(hidden: int, layers: int, vocabulary: int = VOCABULARY, heads: int = 4, **changes: Any) -> Any:
    """A random Llama, warmed so that its distribution has peaks."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=changes.pop("intermediate", 3 * hidden),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=changes.pop("kv_heads", heads),
        max_position_embeddings=8192,
        tie_word_embeddings=changes.pop("tied", False),
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **changes,
    )
    return LlamaForCausalLM(config)


def examples_of(lengths: Sequence[tuple[int, int]], vocabulary: int, seed: int = 0) -> list[Any]:
    """(prompt, response) token counts as examples of random ids."""
    from qup.training.examples import Example

    draw = np.random.default_rng(seed)
    return [Example(i, f"p{i}", draw.integers(3, vocabulary, p + r).astype(np.int32), p, False) for i, (p, r) in enumerate(lengths)]


def threads_of(spec: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(spec.get("threads", 1))


def clock(spec: dict[str, Any]) -> float:
    """Seconds: of the CPU where one thread works, so that a busy machine does not count; else by the wall."""
    return time.process_time() if spec["device"] == "cpu" and spec.get("threads", 1) == 1 else time.perf_counter()


def model_of(spec: dict[str, Any]) -> Any:
    import torch

    with torch.device(spec["device"]):
        model = llama(**spec["shape"], attn_implementation="sdpa")
    return model.to(torch.bfloat16) if spec["dtype"] == "bfloat16" else model


def baseline(model: Any, device: str) -> tuple[int, int]:
    """Bytes held before training, weights included, and the number of weights."""
    import torch

    if device == "cuda":
        model.to("cuda")
    return torch.cuda.memory_allocated() if device == "cuda" else resident(), sum(p.numel() for p in model.parameters())
