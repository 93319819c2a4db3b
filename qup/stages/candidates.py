"""One pool's candidate traces for the solvable problems. Sharded over problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from qup.candidates.given import dataset_traces, file_traces, given_candidates
from qup.candidates.native import native_candidates
from qup.candidates.problems import InputTrace, ProblemSet, Traces, solvable_problems
from qup.candidates.rounds import still_open
from qup.candidates.table import Part, Tally
from qup.config.views import CandidatesView
from qup.errors import InputError
from qup.pipeline.context import Context
from qup.records import CANDIDATES
from qup.store import Artifact, model_of
from qup.store.rows import TableWriter, create_once

if TYPE_CHECKING:
    from qup.candidates.asked import Asker, Job
    from qup.config.schema import Sampling

LOCAL_SHARD = 4096
"""Problems a shard where no Oracle is asked."""

Inputs = Mapping[str, Artifact]


def plan(view: CandidatesView, inputs: Inputs, ctx: Context) -> int:
    """Number of shards."""
    return -(-len(_problems(view, inputs)) // _shard_size(view, ctx))


def shard(view: CandidatesView, inputs: Inputs, ctx: Context, indices: Sequence[int]) -> None:
    """Makes some shards, in order."""
    problems = _problems(view, inputs)
    size = _shard_size(view, ctx)
    indices = sorted(indices)
    bounds = [(index * size, min((index + 1) * size, len(problems))) for index in indices]
    ctx.check()
    for index, (_, stop), part in zip(indices, bounds, _parts(view, inputs, ctx, problems, bounds), strict=True):
        ctx.save_shard(index, part.shard())
        ctx.progress(stop, len(problems), "problems")
        ctx.check()


def merge(view: CandidatesView, inputs: Inputs, ctx: Context) -> dict[str, Any]:
    """Writes `candidates` and returns counts."""
    tally = Tally()
    count = plan(view, inputs, ctx)
    with TableWriter(ctx.out, "candidates", CANDIDATES) as writer:
        for index in range(count):
            part = Part.of_shard(ctx.load_shard(index))
            tally.add(part)
            writer.write(part.table)
    solvable = len(inputs["solvable"].table("solvable", ["problem_id"]))
    metrics = tally.metrics() | {"n_solvable": solvable, "round": view.round}
    if asks_oracle(view):
        from qup.oracle import LEDGER, read_spent
        from qup.serving.facts import noted
        from qup.text.prompts import oracle_prompts

        metrics["spent"] = read_spent(ctx.work / LEDGER).as_dict()
        metrics |= noted(ctx.work / LEDGER)
        metrics["prompts"] = {_task(view): oracle_prompts(view.oracle)[_task(view)].digest}
    return metrics


def asks_oracle(view: CandidatesView) -> bool:
    """Whether this pool is written by an Oracle."""
    return view.source.name in ("oracle", "cooperative") or view.refinement.name != "none"


def _task(view: CandidatesView) -> str:
    """The Oracle's orders, by their name in qup/text/prompts.py."""
    if view.sampling is not None:
        return "cooperate"
    return "synthesize" if view.refinement.name == "none" else view.refinement.name


def _problems(view: CandidatesView, inputs: Inputs) -> ProblemSet:
    """The solvable problems; in a round of tries those that are still open."""
    problems = solvable_problems(inputs)
    if view.round <= 1:
        return problems
    return problems.take(np.flatnonzero(still_open(inputs, problems.ids, view.refinement.margin, view.round)))


def _shard_size(view: CandidatesView, ctx: Context) -> int:
    """Problems a shard. The Oracle's is a runtime setting, so the first process of a stage fixes it for all later ones."""
    if not asks_oracle(view):
        return LOCAL_SHARD
    asked = pa.table({"problems": pa.array([view.oracle.shard_size])})
    return int(create_once(ctx.work / "shard_size.parquet", asked)["problems"][0].as_py())


def _parts(view: CandidatesView, inputs: Inputs, ctx: Context, problems: ProblemSet, bounds: list[tuple[int, int]]) -> Iterator[Part]:
    if view.sampling is not None:
        return _cooperative(view, view.sampling, inputs, ctx, problems, bounds)
    if asks_oracle(view):
        return _asked(view, inputs, ctx, problems, bounds)
    match view.source.name:
        case "student":
            return native_candidates(inputs["rollouts"], inputs["verdicts"], problems, bounds, view.source.cleaning, view.extraction)
        case "dataset":
            given = dataset_traces(inputs["problems"], problems)
        case "file":
            given = file_traces(view.source, problems, inputs["problems"])
        case other:
            raise InputError(f"source.name={other!r}: a pool is student, oracle, dataset or file")
    return given_candidates(given, problems, bounds, view.extraction, view.timeout_s)


@dataclass(frozen=True)
class _Wanted:
    """What the Oracle works on, by shard."""

    traces: Iterator[list[InputTrace]]
    native: Iterator[list[InputTrace]] | None


def _wanted(view: CandidatesView, inputs: Inputs, problems: ProblemSet, bounds: list[tuple[int, int]]) -> _Wanted:
    own = Traces(inputs["rollouts"], problems, inputs.get("verdicts"))
    source = own if view.source.name == "student" else Traces(inputs["base"], problems)
    if view.refinement.input == "all":
        picked = source.all()
    else:
        picked = own.kept(problems) if source is own else source.drawn(problems, view.seed)
    styled = view.refinement.name == "style_aligned" and source is not own
    return _Wanted(source.read(picked, bounds), own.read(own.kept(problems), bounds) if styled else None)


def _asked(view: CandidatesView, inputs: Inputs, ctx: Context, problems: ProblemSet, bounds: list[tuple[int, int]]) -> Iterator[Part]:
    from qup.answers.verifier import Verifier
    from qup.candidates.asked import Asker
    from qup.models import load_tokenizer
    from qup.oracle import stage_oracle
    from qup.text.prompts import oracle_prompts

    prompt = oracle_prompts(view.oracle)[_task(view)]
    tokenizer = load_tokenizer(view.model, model_of(inputs))
    client = stage_oracle(view.oracle, ctx, view.max_usd, view.vllm)
    retries = 0 if view.round else view.refinement.retries
    with client, Verifier(view.timeout_s) as verifier:
        encode = partial(tokenizer.encode, add_special_tokens=False)
        asker = Asker(client, verifier, prompt, view.extraction, retries, view.teacher, encode)
        groups = list(_jobs(view, inputs, problems, bounds)) if client.batched else _jobs(view, inputs, problems, bounds)
        if client.batched:
            _settle(asker, [job for jobs in groups for job in jobs], bounds[0][0], bounds[-1][1], len(problems), ctx)
        for (lo, hi), jobs in zip(bounds, groups, strict=True):
            if not client.batched:
                _settle(asker, jobs, lo, hi, len(problems), ctx)
            part = asker.part(jobs)
            without = (hi - lo) - len({job.problem_id for job in jobs})
            yield Part(part.table, part.counts | {"without_input": float(without)})


def _cooperative(
    view: CandidatesView, drawn: Sampling, inputs: Inputs, ctx: Context, problems: ProblemSet, bounds: list[tuple[int, int]]
) -> Iterator[Part]:
    from qup.answers.verifier import Verifier
    from qup.candidates.cooperative import Draft, Pair
    from qup.generation import Student, open_backend
    from qup.oracle import stage_oracle
    from qup.text.prompts import oracle_prompts
    from qup.text.turns import open_boundary

    student = Student.open(view.model, model_of(inputs))
    ids, questions, golds = problems.ids.to_pylist(), problems.questions.to_pylist(), problems.answers.to_pylist()
    sampling = replace(drawn, n=1, min_new_tokens=1)
    prompt, boundary = oracle_prompts(view.oracle)["cooperate"], open_boundary(view.source.boundary, view.source.boundary_content)
    oracle = stage_oracle(view.oracle, ctx, view.max_usd, view.vllm)
    with oracle as client, Verifier(view.timeout_s) as verifier, open_backend(student, sampling, ctx, view.vllm) as backend:
        pair = Pair(
            student, backend, sampling, client, prompt, view.teacher, boundary, verifier, view.extraction,
            view.refinement.retries, view.source.span_tokens, ctx.check,
        )  # fmt: skip
        for lo, hi in bounds:
            drafts = [Draft(ids[p], sample, questions[p], golds[p]) for p in range(lo, hi) for sample in range(view.source.samples)]
            pair.settle(drafts)
            yield pair.part(drafts)


def _settle(asker: Asker, jobs: list[Job], lo: int, hi: int, total: int, ctx: Context) -> None:
    """Settles the jobs of the problems lo … hi−1."""
    for done, _ in enumerate(asker.settle(jobs), 1):
        ctx.progress(lo + (hi - lo) * done // len(jobs), total, "problems")
        ctx.check()


def _jobs(view: CandidatesView, inputs: Inputs, problems: ProblemSet, bounds: list[tuple[int, int]]) -> Iterator[list[Job]]:
    """What the Oracle is asked for, shard by shard."""
    from qup.candidates.asked import CANDIDATE_STRIDE, Job

    ids, questions, golds = problems.ids.to_pylist(), problems.questions.to_pylist(), problems.answers.to_pylist()
    tries = max(view.round, 1) - 1
    if view.refinement.name == "none":
        for lo, hi in bounds:
            samples = [(p, sample) for p in range(lo, hi) for sample in range(view.source.samples)]
            yield [Job(ids[p], sample, questions[p], golds[p], first_attempt=sample * CANDIDATE_STRIDE + tries) for p, sample in samples]
        return
    wanted = _wanted(view, inputs, problems, bounds)
    for traces in wanted.traces:
        native = {trace.problem: trace.text for trace in next(wanted.native)} if wanted.native is not None else {}
        yield [
            Job(
                ids[trace.problem],
                trace.candidate,
                questions[trace.problem],
                golds[trace.problem],
                trace.text,
                native.get(trace.problem),
                tries,
            )
            for trace in traces
        ]
