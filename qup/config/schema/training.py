"""Training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from qup.config.schema.choices import TEMPLATES
from qup.config.schema.data import Benchmark
from qup.config.schema.fields import opt, section
from qup.config.schema.student import Sampling


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters in place of full fine-tuning."""

    rank: int = opt(16, "rank", at_least=1)
    alpha: float = opt(32.0, "scale", above=0)
    dropout: float = opt(0.0, "dropout inside the adapters", at_least=0, at_most=1)
    targets: list[str] = opt(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "modules that get one")


@dataclass(frozen=True)
class Trainer:
    """One fine-tuning run."""

    objective: str = opt("sft", "the loss, by name in qup/training/objectives.py", choices=("sft", "dft"))
    lr: float = opt(5e-5, "peak learning rate", above=0)
    batch_size: int = opt(256, "examples an optimizer step, over all ranks", at_least=1)
    epochs: int = opt(1, "passes over the stream", at_least=1)
    max_steps: int | None = opt(None, "stop after so many optimizer steps", at_least=1)
    drop_last: bool = opt(False, "leave out the last incomplete batch, as the DFT recipe does")
    schedule: str = opt("cosine", "learning rate over the steps", choices=("cosine", "linear", "constant"))
    warmup_ratio: float = opt(0.1, "share of the steps that warm up", at_least=0, at_most=1)
    betas: list[float] = opt([0.9, 0.95], "AdamW's betas")
    eps: float = opt(1e-8, "AdamW's epsilon", above=0)
    weight_decay: float = opt(0.01, "AdamW's weight decay", at_least=0)
    decay_all: bool = opt(True, "decay every parameter, as the DFT recipe does; false leaves norms and biases out")
    clip: float = opt(1.0, "gradient norm limit; 0: none", at_least=0)
    dtype: str = opt("bfloat16", "computation and weights", choices=("float32", "bfloat16"))
    master: str = opt(
        "float32",
        "master weights and AdamW's moments; bfloat16: none beside the weights, as the DFT recipe",
        choices=("float32", "bfloat16"),
    )
    template: str = opt("", "prompt that training puts before a response; model.template where empty", choices=("", *TEMPLATES))
    ending: str = opt(
        "turn", "token that ends a response: what the chat template ends a turn with, or the tokenizer's EOS", choices=("turn", "eos")
    )
    max_length: int = opt(2048, "tokens of prompt and response; longer examples are cut on the right, and counted", at_least=8)
    max_dropped: float = opt(0.01, "largest share of examples with no response token left after the cut", at_least=0, at_most=1)
    normalisation: str = opt(
        "global",
        "the loss's divisor: the step's tokens, each micro-batch's mean, or as the DFT authors' code",
        choices=("global", "micro_batch", "dft_repo"),
    )
    micro_batch: int | str = opt("auto", "rows a forward pass and rank; auto: the largest that fits")
    packing: bool = opt(True, "several examples a row, without seeing each other")
    row_tokens: int | None = opt(None, "length of a packed row; chosen per step where none", at_least=8)
    activation_checkpointing: bool = opt(False, "recompute activations in the backward pass")
    attention: str = opt(
        "auto",
        "attention kernel; auto: flash_attention_2, else torch_varlen, where GPU, dtype, package and model have it, else model.attention",
        choices=("auto", "sdpa", "eager", "flash_attention_2", "torch_varlen"),
        runtime=True,
    )
    compile: bool = opt(False, "torch.compile the model body")
    liger: bool = opt(False, "Liger kernels, on GPUs")
    lora: Lora | None = opt(None, "low-rank adapters in place of full fine-tuning")
    dropout: float = opt(0.0, "attention dropout", at_least=0, at_most=1)
    seed: int | None = opt(None, "seed of data order and dropout")
    evaluate_at: list[float] = opt([], "shares of the run after which weights are kept and evaluated too")
    checkpoint_minutes: float = opt(15.0, "minutes between checkpoints", above=0, runtime=True)
    checkpoint_steps: int | None = opt(None, "steps between checkpoints, beside the minutes", at_least=1, runtime=True)
    timeout_s: float = opt(45.0, "seconds after which a silent rank counts as dead", above=0, runtime=True)


@dataclass(frozen=True)
class Zero:
    """DeepSpeed ZeRO. It moves memory about and changes results by rounding only, so it is no part of a key."""

    stage: int = opt(1, "ZeRO stage", choices=(0, 1, 2, 3), runtime=True)
    offload: bool = opt(False, "optimizer and parameters in CPU memory (stage 3)", runtime=True)
    overlap: bool = opt(True, "on GPUs, send gradients while the rest is computed (stages 2 and 3)", runtime=True)


@dataclass(frozen=True)
class Evaluation:
    """How utility is measured."""

    sampling: Sampling = section(Sampling, "how responses are drawn; n is the k of Avg@k")
    benchmarks: dict[str, Benchmark] = opt({}, "what is solved")
    dev: dict[str, int] = opt({}, "benchmark → its first so many problems, for choosing hyper-parameters; kept apart from what is reported")
    timeout_s: float = opt(5.0, "seconds a symbolic comparison may take before it counts as wrong", above=0)
