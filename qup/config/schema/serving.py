"""How vLLM is started, wherever a backend is vllm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qup.config.schema.fields import opt


@dataclass(frozen=True)
class Vllm:
    """The vLLM that serves students, the Oracle and reward models on the GPUs of their stages."""

    command: str = opt(
        "",
        "what starts vLLM: its program, the folder of its environment, or a line such as `apptainer exec --nv vllm.sif vllm`; "
        "where empty, the vllm beside this Python, else on PATH",
        runtime=True,
    )
    setup: list[str] = opt([], "shell lines run before it, such as `module load cuda`", runtime=True)
    args: dict[str, Any] = opt(
        {}, "flags of every `vllm serve` that change no result, without their dashes: {gpu-memory-utilization: 0.85}", runtime=True
    )
    tensor_parallel: int = opt(
        1, "GPUs that one copy of a student is split over; the stage's other GPUs hold further copies", at_least=1, runtime=True
    )
    sequences: int = opt(256, "responses drawn at a time by one copy of a student", at_least=1, runtime=True)
    start_s: float = opt(1800.0, "seconds that a server may take to start", above=0, runtime=True)
    stall_s: float = opt(300.0, "seconds without a token, while requests run, after which a server is started anew", above=0, runtime=True)
