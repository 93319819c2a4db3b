"""What traces are scored by."""

from __future__ import annotations

from dataclasses import dataclass

from qup.config.schema.fields import opt
from qup.config.schema.world import LabReward


@dataclass(frozen=True)
class Reward:
    """A reward model."""

    path: str = opt("", "local directory or hub name; empty with lab", runtime=True)
    content: str = opt("", "digest of the directory or hub commit; filled at planning")
    revision: str | None = opt(None, "hub commit, tag or branch", runtime=True)
    format: str = opt("lab", "input format", choices=("lab", "qwen25_math_rm", "skywork_v2", "nemotron", "sequence_classification"))
    trust_remote_code: bool = opt(False, "run code shipped with the model; needs a pinned revision or a local directory")
    dtype: str = opt("bfloat16", "weights in memory", choices=("float32", "bfloat16"))
    device: str = opt("auto", "auto: the GPUs where there are some", choices=("auto", "cpu", "cuda"), runtime=True)
    max_length: int = opt(4096, "tokens, prompt and trace; longer traces get no score and are counted", at_least=8)
    batch_tokens: int = opt(16384, "padded tokens a forward pass", at_least=1)
    shard_size: int = opt(1024, "traces a shard", at_least=1)
    threads: int = opt(1, "CPU threads a process", at_least=1)
    backend: str = opt("transformers", "in process, or a vLLM pooling server", choices=("transformers", "vllm"))
    base_url: str | None = opt(None, "backend vllm: address of a running pooling server; where none, the stage starts one", runtime=True)
    lab: LabReward | None = opt(None, "a reward model of the lab")


@dataclass(frozen=True)
class Perplexity:
    """NLL and rank of every response token under the untuned student."""

    batch_tokens: int = opt(8192, "tokens a forward pass", at_least=1)
    shard_size: int = opt(1024, "traces a shard", at_least=1)
    rank_cap: int = opt(100, "ranks are clipped here", at_least=1)
    truncate_at: int = opt(2048, "length of the figure as truncated for training, prompt and response", at_least=8)
