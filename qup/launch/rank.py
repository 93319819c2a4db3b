"""`qup rank FILES…`: no training at all. Which teacher's traces suit a student, by every measure, and how far to trust each.

Each teacher's traces become a stored set that the token pass, rewards and measures run over; a second call, and a
study that scores the same traces, find the results.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qup.analysis.findings.judged import Judgement, judgements
from qup.analysis.results.arms import arrange, grouped
from qup.analysis.results.outcomes import load_outcome
from qup.analysis.results.predictors import ArmScores, Predictor, predictors
from qup.analysis.results.shelf import Shelf
from qup.analysis.statistics.ranking import resampled
from qup.config import views
from qup.config.measured import relevant_measure, token_pass
from qup.config.schema import Config, Resources
from qup.data.decontamination import folded
from qup.data.sets import questions
from qup.data.traces import read_traces
from qup.draws import uniform
from qup.errors import ConfigError, InputError, QupError
from qup.launch.execution import execute
from qup.launch.job import Job
from qup.launch.local.machine import cores
from qup.launch.local.zygote import PRELOAD
from qup.measures import KINDS
from qup.measures.grace import LEAST
from qup.pipeline import Graph, Node, Ref
from qup.records import STREAM
from qup.store import Store, save_table
from qup.store.store import Record
from qup.study import Study

DRAWS = 1000
READ = ("problems", "model", "source", "reward", "measure", "perplexity", "store")
"""The sections of a configuration that ranking reads; what is wrong with others doesn't matter."""
FEWEST = LEAST
"""Problems that all teachers must share."""


@dataclass(frozen=True)
class TrackRecord:
    """How often a measure was right in the studies of a store."""

    right: float
    """Decided pairs of arms that it ordered rightly."""
    decided: int
    picked_best: int
    judged: int
    """Students and settings that it was judged on."""


def rank(files: Sequence[str], overrides: Sequence[str], store: Path, sample: int, console: Console) -> int:
    """Scores every teacher's traces, prints the table, returns the exit status. Raises QupError for whatever can be mended."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # transformers' bars, here and in the processes below
    cell = _cell(files, overrides, store)
    teachers, problems = _teachers(cell, sample)
    console.print(
        f"{len(teachers)} teachers, {len(problems)} problems that all of them have, student {cell.model.name}: "
        f"{', '.join(cell.measure)}" + (f"; rewards {', '.join(cell.reward)}" if cell.reward else ""),
    )
    began = time.monotonic()
    scores = _scored(cell, {name: {problem: traces[problem] for problem in problems} for name, traces in teachers.items()}, problems)
    rewards = list(cell.reward)
    every = predictors(scores, cell.measure, lambda measure: measure.reward or cell.verdict.reward or (rewards[0] if rewards else None))
    records = track_record(Store(store))
    _show(every.arms, every.found, every.problems, records, console)
    lacking = [name for name in cell.measure if name not in {one.name for one in every.found}]
    for name in lacking:
        console.print(f"{name}: some teacher has no number by it, so it ranks nobody")
    for one in every.found:
        if one.note:
            console.print(f"{one.name}: {one.note}")
    console.print(f"{time.monotonic() - began:.0f} s; nothing was trained")
    return 0


def _cell(files: Sequence[str], overrides: Sequence[str], store: Path) -> Config:
    """The settings that matter here: student, problems, files, measures, rewards."""
    from qup.config.compose import compose_cell
    from qup.identity.resolve import resolve
    from qup.launch.check import faults

    words = {text.partition("=")[0].lstrip("+~") for text in overrides}
    asked = [*overrides, "source=file", f"source.files=[{','.join(repr(file) for file in files)}]", f"store.dir={store}"]
    cell = compose_cell([*asked, "selection=random", "judge=none", "oracle=none"])
    if not any(word.startswith("reward") for word in words):
        cell = replace(cell, reward={}, verdict=replace(cell.verdict, reward=None))
    if found := [fault for fault in faults(cell) if fault.key.split(".")[0] in READ]:
        raise ConfigError(found)
    return resolve(
        replace(cell, problems=replace(cell.problems, decontaminate_against={})), store, without=("rollouts", "evaluation", "judge")
    )


def _teachers(cell: Config, sample: int) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """teacher → problem → its first trace, and the sampled problems with their texts, in the problems' order."""
    known = dict(questions(cell.problems))
    if not known:
        raise InputError(f"problems.path={cell.problems.path}: a local file is needed to rank by; download it first")
    given = read_traces(replace(cell.source, samples=10**9))
    by_text = {folded(text): name for name, text in known.items()} if cell.source.question else None
    teachers: dict[str, dict[str, str]] = {}
    for name, text, teacher in zip(given.names, given.texts, given.teachers, strict=True):
        problem = by_text.get(name) if by_text is not None else name
        if problem in known and text.strip():
            teachers.setdefault(teacher, {}).setdefault(problem, text)
    if len(teachers) < 2:
        only = f"one teacher, {next(iter(teachers))!r}" if teachers else "no trace of a known problem"
        raise InputError(f"{', '.join(map(str, cell.source.files))}: {only}; ranking needs two teachers or more, a file each or a column")
    few = [f"{name} ({len(traces)})" for name, traces in teachers.items() if len(traces) < FEWEST]
    if few:
        raise InputError(f"teachers with fewer than {FEWEST} problems: {', '.join(few)}; leave their files out")
    shared = [name for name in known if all(name in traces for traces in teachers.values())]
    if len(shared) < FEWEST:
        counts = ", ".join(f"{name} {len(traces)}" for name, traces in teachers.items())
        raise InputError(f"the teachers share {len(shared)} problems, and at least {FEWEST} are needed; they have {counts}")
    chosen = set(sorted(shared, key=lambda name: uniform(0, "rank", name))[:sample])
    return teachers, {name: known[name] for name in shared if name in chosen}


def _scored(cell: Config, teachers: Mapping[str, Mapping[str, str]], problems: Mapping[str, str]) -> list[ArmScores]:
    """Every teacher's scores, computed or found; several processes share the teachers."""
    store = Store(cell.store.dir)
    graph = Graph()
    student = {"student": graph.add("student", views.StudentView(cell.model.lab), label=cell.model.name)} if cell.model.lab else {}
    jobs: dict[str, dict[str, Ref]] = {}
    for name, traces in teachers.items():
        inputs = {"traces": _published(store, name, traces, problems), **student}
        refs = {"tokens": graph.add("perplexity", views.PerplexityView(cell.model, token_pass(cell)), inputs, label=name)}
        for of, measure in cell.measure.items():
            if KINDS[measure.kind].needs != "tokens":
                view = views.MeasureView(cell.model, token_pass(cell), relevant_measure(measure))
                refs[f"measure.{of}"] = graph.add("measure", view, inputs, label=f"{name}/{of}")
        for of, reward in cell.reward.items():
            given = dict(inputs)
            given.pop("student", None)
            if reward.lab is not None and reward.lab.kind == "outcome":
                given["reward_model"] = graph.add("reward_model", views.RewardModelView(reward.lab), label=of)
            refs[f"reward.{of}"] = graph.add("reward", views.RewardView(of, reward), given, label=f"{name}/{of}")
        jobs[name] = refs
    if cell.model.lab is None:
        from qup.models import placed

        placed(cell.model)
    nodes = list(graph.nodes.values())
    first = [node for node in nodes if node.kind in ("student", "reward_model")]
    for wave in (first, [node for node in nodes if node not in first]):
        _run([_job(store, node, cell) for node in wave])
    made = []
    for name, refs in jobs.items():
        found = {of: store.get(*ref) for of, ref in refs.items()}
        there = {of: artifact for of, artifact in found.items() if artifact is not None}
        parts = {
            part: {of.partition(".")[2]: artifact for of, artifact in there.items() if of.startswith(part)}
            for part in ("reward.", "measure.")
        }
        made.append(ArmScores(name, there["tokens"], parts["reward."], parts["measure."]))
    return made


def _published(store: Store, name: str, traces: Mapping[str, str], problems: Mapping[str, str]) -> Ref:
    """A stream that holds one teacher's traces, in the store under the digest of what it holds."""
    hasher = hashlib.sha256(b"rank\0")
    for problem, question in problems.items():
        for part in (problem, question, traces[problem]):
            data = part.encode("utf-8", "surrogatepass")
            hasher.update(len(data).to_bytes(8, "little") + data)
    ref = Ref("stream", hasher.hexdigest()[:20])
    lease = store.acquire(*ref, {}, lambda: False)
    if lease is None:
        return ref
    try:
        n = len(problems)
        columns = {
            "problem_id": list(problems), "pool": ["file"] * n, "candidate": [0] * n, "teacher": [name] * n, "question": list(problems.values()),
            "text": [traces[problem] for problem in problems], "correct": [None] * n, "status": ["ok"] * n, "random_candidate": [""] * n,
            "n_eligible": [1] * n, "weight": [1.0] * n, "turns": [[]] * n,
        }  # fmt: skip
        out = store.draft(*ref)
        save_table(out, "stream", pa.table({field.name: pa.array(columns[field.name], field.type) for field in STREAM}, schema=STREAM))
        record = Record("stream", 1, ref.key, {"rank": name}, {}, "rank", f"rank-{ref.key}")
        store.publish(out, record, {"n": n}, lease, {"seconds": 0.0, "finished": time.time()})
    finally:
        lease.release()
    return ref


def _job(store: Store, node: Node, cell: Config) -> Job:
    return Job(
        "rank",
        Path(store.root),
        Path(store.root),
        cell.store.lease_s,
        node.ref,
        node.label,
        node.view,
        node.inputs,
        node.hints,
        Resources(),
    )


def _run(jobs: Sequence[Job]) -> None:
    """Runs stages side by side, a few at a time, in processes that share their imports; raises the first fault."""
    if not jobs:
        return
    processes = get_context("forkserver")
    processes.set_forkserver_preload(list(PRELOAD))
    with ProcessPoolExecutor(min(len(jobs), cores()), processes) as pool:
        for job, fault in zip(jobs, pool.map(_execute, jobs), strict=True):
            if fault:
                raise QupError(f"{job.label}: {fault}")


def _execute(job: Job) -> str:
    """In a process of its own, where libraries tell the terminal nothing; the fault, "" without one."""
    from qup.training.ranks import quiet_deepspeed

    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    quiet_deepspeed()
    try:
        execute(job, lambda: False, logging.getLogger("qup.rank"))
    except QupError as error:
        return str(error)
    return ""


def track_record(store: Store) -> dict[str, TrackRecord]:
    """Measure → how often it was right, over every student and setting judged in the store's studies."""
    made: dict[str, TrackRecord] = {}
    for folder in sorted(store.studies.iterdir()) if store.studies.is_dir() else []:
        try:
            study = Study.at(folder)
        except InputError:
            continue
        for one in _judged(study, Shelf(store)) if study is not None else []:
            for measure in one.measures:
                if math.isfinite(measure.right):
                    before = made.get(measure.measure, TrackRecord(0.0, 0, 0, 0))
                    made[measure.measure] = TrackRecord(
                        before.right + measure.right * one.decided, before.decided + one.decided,
                        before.picked_best + (measure.regret.value == 0), before.judged + 1,
                    )  # fmt: skip
    return made


def _judged(study: Study, shelf: Shelf) -> list[Judgement]:
    runs = arrange(study)
    outcomes = {}
    for run in runs:
        artifact = shelf.of(run.cell, "evaluate")
        outcomes[run.cell.label] = load_outcome(shelf, artifact) if artifact is not None else None
    return [one for one in judgements(study, grouped(runs), outcomes, shelf) if not one.fault and one.decided]


def _show(arms: Sequence[str], found: Sequence[Predictor], problems: int, records: Mapping[str, TrackRecord], console: Console) -> None:
    """A row a measure, a column a teacher: its number with an interval, its rank, and how often it came first in resamples."""
    weight_BP = resampled(np.random.default_rng(0), problems, DRAWS)
    table = Table(title=f"by each measure, best first in its direction; 95 % intervals over {problems} problems")
    table.add_column("measure")
    for arm in arms:
        table.add_column(arm, justify="right", overflow="fold")
    table.add_column("first")
    table.add_column("track record", overflow="fold")
    for one in found:
        value_A, value_BA = one.under(np.ones((1, problems)))[0], one.under(weight_BP)
        low_A, high_A = np.nanpercentile(value_BA, (2.5, 97.5), axis=0)
        order = np.argsort(np.argsort(-one.sign * value_A, kind="stable"), kind="stable")
        best = int(np.nanargmax(one.sign * value_A))
        share = float((np.nanargmax(np.where(np.isnan(value_BA), -np.inf, one.sign * value_BA), axis=1) == best).mean())
        cells = [f"{order[a] + 1}. {value_A[a]:.3g}\n[{low_A[a]:.3g}, {high_A[a]:.3g}]" for a in range(len(arms))]
        record = records.get(one.name)
        told = (
            "none"
            if record is None
            else f"{record.right:.0f} of {record.decided} pairs, best arm {record.picked_best} of {record.judged} times"
        )
        table.add_row(
            f"{one.name}\n({'higher' if one.better == 'high' else 'lower'} suits better)",
            *map(escape, cells),
            f"{arms[best]}, {100 * share:.0f} % of resamples",
            told,
        )
    console.print(table)
    if not records:
        console.print(
            "No study in this store has three evaluated arms of a student, so no measure has a track record here: "
            "what ranks first is what the measure's authors would take, not what is known to teach best.",
        )  # fmt: skip
