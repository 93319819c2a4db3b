"""What traces are scored by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qup.config.schema.choices import MEASURES, STEPS
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
    backend: str = opt(
        "transformers",
        "in process, or a vLLM pooling server; auto: vllm where vllm.command is set",
        choices=("transformers", "vllm", "auto"),
    )
    base_url: str | None = opt(None, "backend vllm: address of a running pooling server; where none, the stage starts one", runtime=True)
    served_model: str | None = opt(None, "the model's name at base_url, where it can't be told from path", runtime=True)
    vllm: dict[str, Any] = opt({}, "flags of its `vllm serve` that change scores, without their dashes: {quantization: fp8}")
    lab: LabReward | None = opt(None, "a reward model of the lab")


@dataclass(frozen=True)
class Perplexity:
    """NLL and rank of every response token under the untuned student."""

    batch_tokens: int = opt(8192, "tokens a forward pass", at_least=1)
    shard_size: int = opt(1024, "traces a shard", at_least=1)
    rank_cap: int = opt(100, "ranks are clipped here", at_least=1)
    brier_top: int = opt(50, "so many of the likeliest tokens make up the renormalised Brier score that measure lark reads", at_least=2)
    activation: str | None = opt(
        "mlp.up_proj", "the module of the last block whose outputs measure scas reads; not recorded where no scas is asked for"
    )
    truncate_at: int = opt(2048, "length of the figure as truncated for training, prompt and response", at_least=8)


@dataclass(frozen=True)
class Measure:
    """A measure of how well traces suit the student; docs/measures.md explains each."""

    kind: str = opt("mean_logprob", "which, by name in qup/measures/registry.py", choices=MEASURES)
    steps: str = opt("sentences", "where a step ends (aslec_drop, aslec_casl, lalp, length)", choices=STEPS)
    first: int = opt(1, "tokens at the beginning of a step that count as its first (aslec_drop, aslec_casl)", at_least=1)
    brier: str = opt(
        "top", "over perplexity.brier_top tokens, as the authors', or over the whole vocabulary (lark)", choices=("top", "full")
    )
    weight: float = opt(0.5, "λ of scas: the question's share", at_least=0, at_most=1)
    beta: float = opt(3.0, "β of car: weight of the NLL", at_least=0)
    reward: str | None = opt(None, "reward model that car reads; the verdict's, else the first, where none")
    unit: str = opt("tokens", "what length counts", choices=("tokens", "steps", "tokens_a_step"))
    better: str | None = opt(None, "which end counts as better, for length; the others' own definition says", choices=("high", "low", None))
    window: float = opt(0.1, "earlier steps that lalp sees: below 1 a share of them, rounded up, else a number", above=0)
    dimensions: int = opt(512, "of grace's projected gradients", at_least=2)
    splits: int = opt(10, "random splits of the problems (grace)", at_least=1)
    problems: int = opt(200, "problems sampled for grace, the same for every set; a gradient a trace is what it costs", at_least=10)
    seed: int = opt(0, "of grace's signs, sample and splits", at_least=0)
