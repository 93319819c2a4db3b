"""The student and how it is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qup.config.schema.choices import BACKENDS, EXTRACTIONS, TEMPLATES
from qup.config.schema.fields import opt, section
from qup.config.schema.world import LabStudent


@dataclass(frozen=True)
class Model:
    """A student."""

    name: str = opt("lab_foreign", "label of the student", runtime=True)
    path: str = opt("", "local directory, GGUF file or hub name; empty with lab", runtime=True)
    content: str = opt("", "digest of the directory or hub commit; filled at planning")
    revision: str | None = opt(None, "hub commit, tag or branch", runtime=True)
    gguf_file: str | None = opt(None, "name of a GGUF file inside path, dequantised on loading")
    trust_remote_code: bool = opt(False, "run code shipped with the model; needs a pinned revision or a local directory")
    dtype: str = opt("float32", "weights in memory for generation and scoring", choices=("float32", "bfloat16"))
    attention: str = opt("sdpa", "attention kernel", choices=("sdpa", "eager", "flash_attention_2"))
    template: str = opt("lab", "chat template and instruction, by name in qup/text/templates.py", choices=TEMPLATES)
    stop: list[str] = opt([], "stop strings beyond the ids that model, tokenizer and template name")
    context: int | None = opt(None, "positions, prompt and response together; the model's own where none", at_least=8)
    threads: int = opt(1, "CPU threads a process; in the key, because sums depend on it", at_least=1)
    device: str = opt("auto", "auto: the GPU where there is one", choices=("auto", "cpu", "cuda"), runtime=True)
    lab: LabStudent | None = opt(None, "a student pretrained inside the lab")


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn; one class for rollouts and evaluation."""

    n: int = opt(8, "responses a problem", at_least=1)
    temperature: float = opt(1.0, "0 is greedy", at_least=0)
    top_p: float = opt(1.0, "nucleus", above=0, at_most=1)
    top_k: int = opt(0, "0: all tokens", at_least=0)
    min_p: float = opt(0.0, "tokens below this share of the likeliest are left out", at_least=0, at_most=1)
    max_new_tokens: int = opt(4096, "length limit of a response", at_least=1)
    min_new_tokens: int = opt(16, "a prompt that leaves less room in the context is refused", at_least=1)
    seed: int | None = opt(None, "seed of the draws")
    backend: str = opt("transformers", "who generates; auto: vllm where vllm.command is set, else transformers", choices=BACKENDS)
    base_url: str | None = opt(None, "endpoint of backend=openai")
    served_model: str | None = opt(None, "the model's name at that endpoint")
    api_key_env: str = opt("OPENAI_API_KEY", "environment variable of that endpoint's key", runtime=True)
    vllm: dict[str, Any] = opt({}, "flags of its `vllm serve` that change responses, without their dashes: {quantization: fp8}")
    rows: int = opt(64, "sequences generated side by side; in the key, because sums depend on it", at_least=1)
    shard_size: int | None = opt(None, "problems a shard, what a kill can cost; where none, 64, and 512 with a server", at_least=1)

    @property
    def shard(self) -> int:
        """Problems a shard. A server idles while its last responses are drawn, so its shards are larger."""
        return self.shard_size or (64 if self.backend == "transformers" else 512)


@dataclass(frozen=True)
class Rollouts:
    """The student's responses to the training problems."""

    sampling: Sampling = section(Sampling, "how they are drawn")
    extraction: str = opt("dft", "how the answer is read out of a response", choices=EXTRACTIONS)
    stop_required: bool = opt(True, "a correct response that the length limit cut off enters no stream; false: it may")
    timeout_s: float = opt(5.0, "seconds a symbolic comparison may take before it counts as wrong", above=0)
