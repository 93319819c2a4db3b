"""What each stage sees of a cell's configuration: one frozen dataclass a stage kind.

A stage gets its view and nothing else, so it cannot read a setting that is not in its key.
The key hashes every field of the view that is not `runtime` (see fingerprint.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from qup.config.schema import (
    Alignment,
    Evaluation,
    LabReward,
    LabStudent,
    Measure,
    Model,
    Oracle,
    Perplexity,
    Problems,
    Refinement,
    Retention,
    Reward,
    Sampling,
    Selection,
    Source,
    Tracking,
    Trainer,
    Vllm,
    Zero,
)

RUNTIME = {"runtime": True}


@dataclass(frozen=True)
class ProblemsView:
    """Inputs: none. Table `problems`."""

    problems: Problems


@dataclass(frozen=True)
class StudentView:
    """Inputs: none. Directory `model`, a Hugging Face model with its tokenizer and chat template."""

    lab: LabStudent


@dataclass(frozen=True)
class RewardModelView:
    """Inputs: none. Directory `model`."""

    lab: LabReward


@dataclass(frozen=True)
class RolloutsView:
    """Inputs: problems, student (lab students only). Table `rollouts`. Sharded over problems."""

    model: Model
    sampling: Sampling
    vllm: Vllm = field(default_factory=Vllm, metadata=RUNTIME)
    too_long: str = "error"
    """Whether problems without room for a response are left out (`exclude`) or refused."""


@dataclass(frozen=True)
class VerdictsView:
    """Inputs: problems, rollouts. Table `verdicts`. Sharded over problems."""

    extraction: str
    timeout_s: float
    stop_required: bool = True
    """Whether only responses that ended by a stop token are eligible."""


@dataclass(frozen=True)
class SolvableView:
    """Inputs: problems, verdicts. Table `solvable`: the fixed problem set and the trace slm_rft keeps."""

    seed: int


@dataclass(frozen=True)
class CandidatesView:
    """Inputs: problems, rollouts, solvable; verdicts where the student's own traces are read; `base` (candidates of the unrefined source) where a source
    other than the student's is refined; for round r > 1 of compatibility-guided refinement
    `round.1` … `round.r-1` (earlier candidates), `nll.1` … `nll.r-1` (their perplexity) and
    `nll.native` (perplexity of the kept native traces). Table `candidates`."""

    source: Source
    refinement: Refinement
    oracle: Oracle
    seed: int
    extraction: str
    timeout_s: float
    model: Model
    """The student: its tokenizer counts tokens and edit distances."""
    round: int = 0
    """0: an ordinary arm; r ≥ 1: the r-th round of tries, over the problems still open."""
    teacher: str = "oracle"
    """Who the Oracle's traces say wrote them: its name where the cell has several."""
    sampling: Sampling | None = None
    """How the student draws its spans, where it writes traces together with the Oracle."""
    max_usd: float | None = field(default=None, metadata=RUNTIME)
    vllm: Vllm = field(default_factory=Vllm, metadata=RUNTIME)


@dataclass(frozen=True)
class AcceptView:
    """Inputs: solvable, rollouts, verdicts, `round.1` … `round.k`, `nll.1` …, `nll.native`, `reward.1` … with accept=joint.
    Table `candidates`: for each problem the accepted try."""

    refinement: Refinement
    seed: int


@dataclass(frozen=True)
class AlignedView:
    """Inputs: solvable, and one `arm.<label>` (candidates) for each arm of this student. Tables `aligned`, `losses`."""

    alignment: Alignment
    arms: tuple[str, ...]
    """Labels in input order; an arm of several pools is `a+b`, and has inputs `arm.a` and `arm.b`.
    An arm of one teacher's traces is `a+b:teacher`."""
    teachers: tuple[str, ...] = ()
    """The one teacher of each arm, "" where all of them count; as long as `arms`, or empty."""


@dataclass(frozen=True)
class StreamView:
    """Inputs: problems, solvable, rollouts, aligned, `pool.<name>` (candidates) for each pool; where the selection
    reads them `reward.<name>`, `nll.<name>` (the token pass) and `measure.<name>` (a measure with a pass of its own)
    for each pool. Table `stream`."""

    selection: Selection
    alignment: Alignment
    pools: tuple[str, ...]
    measure: Measure | None = None
    """What the selection ranks by beside rewards."""
    teacher: str = ""
    """Only this teacher's candidates may enter; "": all."""


@dataclass(frozen=True)
class RewardView:
    """Inputs: problems, traces (stream or candidates), reward_model (lab outcome models only).
    Hint: `pool.<name>`, scores of the pools the stream was drawn from. Table `scores`. Sharded over traces."""

    name: str = field(metadata=RUNTIME)
    reward: Reward
    vllm: Vllm = field(default_factory=Vllm, metadata=RUNTIME)


@dataclass(frozen=True)
class PerplexityView:
    """Inputs: problems, traces (stream, candidates or the kept native traces of `solvable` + `rollouts`),
    student (lab students only). Hint: `pool.<name>`. Table `traces`. Sharded over traces."""

    model: Model
    perplexity: Perplexity


@dataclass(frozen=True)
class MeasureView:
    """A measure with a pass of its own, lalp or grace. Inputs: problems, traces, student (lab students only).
    Hint: `pool.<name>`. Table `measured`. Sharded over traces."""

    model: Model
    perplexity: Perplexity
    measure: Measure


@dataclass(frozen=True)
class RetentionView:
    """Inputs: problems, solvable, rollouts, aligned, stream. Table `retention`."""

    judge: Oracle
    retention: Retention
    seed: int
    max_usd: float | None = field(default=None, metadata=RUNTIME)
    vllm: Vllm = field(default_factory=Vllm, metadata=RUNTIME)


@dataclass(frozen=True)
class RankingView:
    """Inputs: problems, solvable, rollouts, aligned, and one `stream.<label>` for each arm. Table `ranking`."""

    judge: Oracle
    retention: Retention
    seed: int
    arms: tuple[str, ...]
    max_usd: float | None = field(default=None, metadata=RUNTIME)
    vllm: Vllm = field(default_factory=Vllm, metadata=RUNTIME)


@dataclass(frozen=True)
class TrainView:
    """Inputs: stream, student (lab students only). Directory `model`, file `steps.jsonl`;
    with evaluate_at also directories `model-<share>`."""

    model: Model
    trainer: Trainer
    zero: Zero = field(metadata=RUNTIME)
    tracking: Tracking = field(metadata=RUNTIME)
    labels: dict[str, str] = field(default_factory=dict, metadata=RUNTIME)
    """Names for people (study, arm, cell), for tracking and the model card."""
    world_size: int = 0
    """Set only where the normalisation or dropout makes the result depend on it."""
    attention: str = ""
    """The kernel asked for, set only where attention dropout makes the result depend on it."""


@dataclass(frozen=True)
class ResponsesView:
    """Inputs: train (fine-tuned) or student (lab, untuned) or none (untuned model by path).
    Table `responses`. Sharded over problems."""

    model: Model
    evaluation: Evaluation
    """Without what only verdicts depend on, see `pipeline.relevant`."""
    at: float = 1.0
    """Which kept weights of the training are evaluated: 1.0 the final ones."""
    vllm: Vllm = field(default_factory=Vllm, metadata=RUNTIME)


@dataclass(frozen=True)
class EvaluateView:
    """Inputs: responses. Table `verdicts`, file `results.json`."""

    evaluation: Evaluation
    tracking: Tracking = field(default_factory=Tracking, metadata=RUNTIME)
    labels: dict[str, str] = field(default_factory=dict, metadata=RUNTIME)
