"""The Oracle and the judge, and what they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qup.config.schema.choices import REFINEMENTS
from qup.config.schema.fields import opt, section
from qup.config.schema.world import LabOracle


@dataclass(frozen=True)
class Oracle:
    """A stronger model behind an interface: programmed, recorded, or any OpenAI-compatible endpoint. Also the judge."""

    name: str = opt("none", "label of the Oracle", runtime=True)
    backend: str = opt("none", "who answers", choices=("none", "lab", "recorded", "openai", "vllm"))
    model: str = opt("", "model name at the endpoint, or the directory or hub name that vllm serves")
    revision: str | None = opt(None, "hub commit of the model that vllm serves")
    base_url: str | None = opt(None, "endpoint; the provider's default where none")
    api_key_env: str = opt("OPENAI_API_KEY", "environment variable that holds the key", runtime=True)
    mode: str = opt("chat", "chat completions, or the batch API", choices=("chat", "batch"), runtime=True)
    temperature: float | None = opt(None, "sampling temperature; not sent where none", at_least=0)
    max_tokens: int = opt(4096, "length limit of an answer", at_least=1)
    seed: int | None = opt(None, "seed sent along, and of the programmed Oracle")
    path: str = opt(
        "",
        "backend recorded: jsonl of requests and answers; backend vllm: the directory that model named, filled at planning",
        runtime=True,
    )
    content: str = opt("", "digest of that file or directory; filled at planning")
    vllm: dict[str, Any] = opt({}, "flags of its `vllm serve` that change answers, without their dashes: {quantization: fp8}")
    chat_template: str = opt("", "backend vllm: file of a chat template in place of the model's own; its text enters the key")
    prompts: dict[str, str] = opt({}, "files that replace a built-in prompt, by task")
    body: dict[str, Any] = opt({}, "further fields of the request's body")
    rpm: float | None = opt(None, "requests a minute, over all processes of the study", above=0, runtime=True)
    tpm: float | None = opt(None, "tokens a minute, over all processes of the study", above=0, runtime=True)
    concurrency: int = opt(32, "most requests in flight", at_least=1, runtime=True)
    timeout_s: float = opt(600.0, "seconds before a request is given up", above=0, runtime=True)
    max_retries: int = opt(8, "further sends after a transport fault", at_least=0, runtime=True)
    usd_per_million_input: float = opt(0.0, "price of input tokens", at_least=0, runtime=True)
    usd_per_million_output: float = opt(0.0, "price of output tokens", at_least=0, runtime=True)
    shard_size: int = opt(256, "problems a shard", at_least=1, runtime=True)
    lab: LabOracle = section(LabOracle, "backend lab")


@dataclass(frozen=True)
class Refinement:
    """What the Oracle does to a trace."""

    name: str = opt("", "none, refine or style_aligned; empty: the stream preset says", choices=("", *REFINEMENTS))
    input: str = opt("kept", "kept: the trace slm_rft keeps, before cleaning; all: every verified candidate", choices=("kept", "all"))
    retries: int = opt(2, "further attempts where an answer fails its checks", at_least=0)
    tries: int = opt(1, "answers asked for under accept=perplexity or joint", at_least=1)
    accept: str = opt("first_correct", "which of the verified tries is kept", choices=("first_correct", "perplexity", "joint"))
    margin: float = opt(0.0, "nats a token: an answer this close to the native trace ends the tries", at_least=0)
    weight: float = opt(1.0, "λ of accept=joint", at_least=0)
    reward: str | None = opt(None, "reward model of accept=joint")


@dataclass(frozen=True)
class Retention:
    """How much of the native trace's content an arm keeps, by a judge."""

    sample: int = opt(3543, "problems judged, the same in all arms", at_least=1)
    seed: int | None = opt(None, "seed of that sample and of the shuffles")
    rating: str = opt(
        "reference",
        "reference: what the arm keeps of the native trace; symmetric: what the two share, additions counted against it",
        choices=("reference", "symmetric"),
    )
    ranking: bool = opt(True, "also rank a problem's arms against each other")
