"""Every setting of qup, typed: one frozen dataclass a config group. The config reference in docs/ is generated from here."""

from __future__ import annotations

from dataclasses import dataclass

from qup.config.schema.choices import BACKENDS, EXTRACTIONS, GOLDS, POOLS, REFINEMENTS, SELECTIONS, STREAMS, TEMPLATES
from qup.config.schema.data import Benchmark, Problems, Source
from qup.config.schema.fields import opt, section
from qup.config.schema.oracle import Oracle, Refinement, Retention
from qup.config.schema.running import Cluster, Resources, Store, Study, Tracking, Verdict
from qup.config.schema.scores import Measure, Perplexity, Reward
from qup.config.schema.serving import Vllm
from qup.config.schema.stream import Alignment, Selection, Stream
from qup.config.schema.student import Model, Rollouts, Sampling
from qup.config.schema.training import Evaluation, Lora, Trainer, Zero
from qup.config.schema.world import LabOracle, LabProblems, LabReward, LabStudent

__all__ = [
    "BACKENDS",
    "EXTRACTIONS",
    "GOLDS",
    "POOLS",
    "REFINEMENTS",
    "SELECTIONS",
    "STREAMS",
    "TEMPLATES",
    "Alignment",
    "Benchmark",
    "Cluster",
    "Config",
    "Evaluation",
    "LabOracle",
    "LabProblems",
    "LabReward",
    "LabStudent",
    "Lora",
    "Measure",
    "Model",
    "Oracle",
    "Perplexity",
    "Problems",
    "Refinement",
    "Resources",
    "Retention",
    "Reward",
    "Rollouts",
    "Sampling",
    "Selection",
    "Source",
    "Store",
    "Stream",
    "Study",
    "Tracking",
    "Trainer",
    "Verdict",
    "Vllm",
    "Zero",
    "opt",
    "section",
]


@dataclass(frozen=True)
class Config:
    """One cell: everything that decides one row of the table, and how it is run."""

    problems: Problems = section(Problems, "the training problems")
    model: Model = section(Model, "the student")
    rollouts: Rollouts = section(Rollouts, "the student's responses to them")
    source: Source = section(Source, "where candidate traces come from")
    refinement: Refinement = section(Refinement, "what the Oracle does to them")
    alignment: Alignment = section(Alignment, "the fixed problem set")
    selection: Selection = section(Selection, "which candidate enters the stream")
    stream: Stream = section(Stream, "a named arm")
    oracle: Oracle = section(Oracle, "the stronger model")
    teacher: dict[str, Oracle] = opt({}, "several Oracles that make one pool, by name; they take the place of `oracle`")
    judge: Oracle = section(Oracle, "who judges retention")
    retention: Retention = section(Retention, "what is judged")
    reward: dict[str, Reward] = opt({}, "reward models, by name")
    measure: dict[str, Measure] = opt({}, "measures of suitability, by name")
    perplexity: Perplexity = section(Perplexity, "all token statistics under the untuned student")
    trainer: Trainer = section(Trainer, "fine-tuning")
    zero: Zero = section(Zero, "DeepSpeed ZeRO", runtime=True)
    evaluation: Evaluation = section(Evaluation, "how utility is measured")
    vllm: Vllm = section(Vllm, "how vLLM is started, where a backend is vllm", runtime=True)
    tracking: Tracking = section(Tracking, "where runs are logged", runtime=True)
    cluster: Cluster = section(Cluster, "resources", runtime=True)
    store: Store = section(Store, "where artifacts live", runtime=True)
    study: Study = section(Study, "the grid", runtime=True)
    verdict: Verdict = section(Verdict, "how the report decides", runtime=True)
    seed: int | None = opt(None, "sets the trainer's and the evaluation's seeds; the column `seed`")
