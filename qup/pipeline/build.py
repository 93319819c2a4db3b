"""Cells become one graph. The one place that knows the order of the stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from qup.config import views
from qup.config.measured import relevant_measure, selected_measure, selected_reward, token_pass
from qup.config.pools import NO_ORACLE, ORACLE, Pool, asks_oracle, drawn_pools, wanted_teacher
from qup.config.schema import Config, Reward, Rollouts
from qup.measures import KINDS as MEASURES
from qup.pipeline.graph import CellStages, Graph, Ref, keys_of, wanted_of
from qup.pipeline.labels import cell_labels
from qup.pipeline.relevant import drawn_evaluation, relevant_refinement, relevant_selection, relevant_source

BASE = "base"


@dataclass
class _Arm:
    """What a cell shares with others of its student before the arms are aligned."""

    cell: Config
    problems: Ref
    student: dict[str, Ref]
    rollouts: Ref | None = None
    verdicts: Ref | None = None
    solvable: Ref | None = None
    pools: dict[str, Ref] | None = None
    label: str = ""

    @property
    def group(self) -> tuple[Any, ...]:
        """Arms of one group are aligned with each other."""
        return (self.solvable, self.cell.alignment.on_failure)


def build_graph(cells: Sequence[Config]) -> Graph:
    """The graph of all cells; cells that come to the same stages are merged and named."""
    graph = Graph()
    arms = [_first_half(graph, cell) for cell in cells]
    aligned = _align(graph, arms)
    pool_scores = _score_pools(graph, arms)
    streams: list[dict[str, Any]] = [{} if arm.pools is None else _stream(graph, arm, aligned[arm.group], pool_scores) for arm in arms]
    rankings = _rankings(graph, arms, streams, aligned)
    seen: dict[tuple[Ref, ...], int] = {}
    for place, (arm, stages, label) in enumerate(zip(arms, streams, cell_labels(cells), strict=True)):
        _second_half(graph, arm, stages, label)
        if arm.pools is not None and arm.group in rankings:
            stages["ranking"] = rankings[arm.group]
        wanted = wanted_of(stages)
        if wanted in seen:
            graph.cells[seen[wanted]].merged.append(label)
            graph.cells[seen[wanted]].members.append(place)
            continue
        seen[wanted] = len(graph.cells)
        graph.cells.append(CellStages(label, arm.cell, keys_of(stages), wanted, members=[place]))
    graph.mark_users()
    return graph


def _first_half(graph: Graph, cell: Config) -> _Arm:
    """Problems, student, rollouts, solvable set, candidates."""
    problems = graph.add("problems", views.ProblemsView(cell.problems), label=cell.problems.name)
    student = {"student": graph.add("student", views.StudentView(cell.model.lab), label=cell.model.name)} if cell.model.lab else {}
    arm = _Arm(cell, problems, student)
    if cell.stream.name == BASE:
        return arm
    arm.rollouts = graph.add(
        "rollouts",
        views.RolloutsView(cell.model, cell.rollouts.sampling, cell.vllm, cell.problems.too_long),
        {"problems": problems, **student},
        label=cell.model.name,
    )
    verifying = views.VerdictsView(cell.rollouts.extraction, cell.rollouts.timeout_s, cell.rollouts.stop_required)
    arm.verdicts = graph.add("verdicts", verifying, {"problems": problems, "rollouts": arm.rollouts}, label=cell.model.name)
    seed = cell.selection.seed or 0
    arm.solvable = graph.add("solvable", views.SolvableView(seed), {"problems": problems, "verdicts": arm.verdicts}, label=cell.model.name)
    arm.pools = {pool.name: _candidates(graph, arm, pool) for pool in drawn_pools(cell)}
    return arm


def _candidates(graph: Graph, arm: _Arm, pool: Pool, *, refined: bool = True) -> Ref:
    """A pool as the cell wants it, or what it is before its refinement."""
    cell = arm.cell
    assert arm.rollouts is not None and arm.solvable is not None
    refinement = relevant_refinement(cell.refinement if refined else replace(cell.refinement, name="none"), pool.source)
    asks = asks_oracle(pool.source, refinement.name)
    inputs = {"problems": arm.problems, "rollouts": arm.rollouts, "solvable": arm.solvable}
    if pool.source == "student":
        assert arm.verdicts is not None
        inputs["verdicts"] = arm.verdicts
    elif refinement.name != "none":
        inputs["base"] = _candidates(graph, arm, pool, refined=False)
    view = views.CandidatesView(
        source=relevant_source(cell.source, pool.source, refinement.name),
        refinement=refinement,
        oracle=pool.oracle if asks else NO_ORACLE,
        seed=cell.selection.seed or 0,
        extraction=cell.rollouts.extraction,
        timeout_s=cell.rollouts.timeout_s if pool.source != "student" or refinement.name != "none" else Rollouts().timeout_s,
        model=cell.model,
        teacher=pool.written if asks else ORACLE,
        vllm=cell.vllm,
        sampling=cell.rollouts.sampling if pool.source == "cooperative" and refinement.name == "none" else None,
    )
    label = f"{cell.model.name}/{pool.name}.{refinement.name}"
    if refinement.name == "none" or refinement.tries == 1:
        return graph.add("candidates", view, inputs | arm.student, label=label)
    return _rounds(graph, arm, view, inputs, label)


def _rounds(graph: Graph, arm: _Arm, view: views.CandidatesView, inputs: dict[str, Ref], label: str) -> Ref:
    """Compatibility-guided refinement, unrolled: ask, score, ask what is still open, …, accept."""
    cell = arm.cell
    assert arm.rollouts is not None and arm.verdicts is not None and arm.solvable is not None
    scorer = views.PerplexityView(cell.model, token_pass(cell))
    native = {"problems": arm.problems, "solvable": arm.solvable, "rollouts": arm.rollouts, **arm.student}
    known = {"nll.native": graph.add("perplexity", scorer, native, label=f"{cell.model.name}/kept")}
    rewards: dict[str, Ref] = {}
    for number in range(1, view.refinement.tries + 1):
        asked = graph.add("candidates", replace(view, round=number), {**inputs, **known, **arm.student}, label=f"{label}#{number}")
        traces = {"problems": arm.problems, "traces": asked, **arm.student}
        known |= {f"round.{number}": asked, f"nll.{number}": graph.add("perplexity", scorer, traces, label=f"{label}#{number}")}
        if view.refinement.accept == "joint" and view.refinement.reward:
            rewards[f"reward.{number}"] = _reward(graph, arm, view.refinement.reward, asked, f"{label}#{number}")
    return graph.add(
        "accept",
        views.AcceptView(view.refinement, view.seed),
        {"solvable": arm.solvable, "rollouts": arm.rollouts, "verdicts": arm.verdicts, **known, **rewards},
        label=label,
    )


def _align(graph: Graph, arms: Sequence[_Arm]) -> dict[tuple[Any, ...], Ref]:
    """One `aligned` stage for each student and rollouts: the problems that every arm can cover."""
    groups: dict[tuple[Any, ...], list[_Arm]] = {}
    for arm in arms:
        if arm.pools is not None:
            groups.setdefault(arm.group, []).append(arm)
    aligned = {}
    for group, members in groups.items():
        names = _pool_labels(members)
        combined: dict[str, Ref] = {}
        labels: dict[str, str] = {}
        for arm in members:
            assert arm.pools is not None
            parts, teacher = [names[ref] for ref in arm.pools.values()], wanted_teacher(arm.cell)
            arm.label = "+".join(parts) + (f":{teacher}" if teacher else "")
            labels[arm.label] = teacher
            combined |= {f"arm.{names[ref]}": ref for ref in arm.pools.values()}
        ordered = tuple(sorted(labels))
        view = views.AlignedView(members[0].cell.alignment, ordered, tuple(labels[label] for label in ordered))
        solvable = members[0].solvable
        assert solvable is not None
        aligned[group] = graph.add("aligned", view, {"solvable": solvable, **combined}, label=members[0].cell.model.name)
    return aligned


def _pool_labels(members: Sequence[_Arm]) -> dict[Ref, str]:
    """A readable and unique name for each candidates stage: source.refinement, with the Oracle where several are asked."""
    names: dict[Ref, str] = {}
    asked: dict[Ref, str] = {}
    for arm in members:
        cell = arm.cell
        for pool in drawn_pools(cell):
            name = f"{pool.source}.{cell.refinement.name}"
            ref = (arm.pools or {})[pool.name]
            names[ref] = name
            if asks_oracle(pool.source, cell.refinement.name):
                asked[ref] = f"{name}.{pool.teacher}"
    names |= {ref: asked[ref] for ref in _not_alone(names) & asked.keys()}
    return names | {ref: f"{names[ref]}.{ref.key[:6]}" for ref in _not_alone(names)}


def _not_alone(names: dict[Ref, str]) -> set[Ref]:
    """Those whose name another has too."""
    counts = Counter(names.values())
    return {ref for ref, name in names.items() if counts[name] > 1}


def _score_pools(graph: Graph, arms: Sequence[_Arm]) -> dict[tuple[str, Ref], Ref]:
    """Scores of whole pools, only where some selection reads them: (scorer, candidates) → scores.

    Where a pool is scored for a selection, every configured reward model scores it, so that streams of
    all selections gather their scores instead of computing them.
    """
    scored: dict[tuple[str, Ref], Ref] = {}
    for arm in arms:
        measure = selected_measure(arm.cell)
        for pool in (arm.pools or {}).values():
            label = f"{arm.cell.model.name}/pool"
            inputs = {"problems": arm.problems, "traces": pool, **arm.student}
            if measure is not None and MEASURES[measure.kind].needs != "tokens":
                view = views.MeasureView(arm.cell.model, token_pass(arm.cell), measure)
                scored[f"{measure}", pool] = graph.add("measure", view, inputs, label=f"{label}/{measure.kind}")
            elif measure is not None:
                scored["nll", pool] = graph.add(
                    "perplexity", views.PerplexityView(arm.cell.model, token_pass(arm.cell)), inputs, label=label
                )
            if reward := selected_reward(arm.cell):
                scored[f"reward.{reward}", pool] = _reward(graph, arm, reward, pool, label)
    return scored


def _reward(graph: Graph, arm: _Arm, name: str, traces: Ref, label: str, hints: dict[str, Ref] | None = None) -> Ref:
    reward: Reward = arm.cell.reward[name]
    inputs = {"problems": arm.problems, "traces": traces}
    if reward.lab is not None and reward.lab.kind == "outcome":
        inputs["reward_model"] = graph.add("reward_model", views.RewardModelView(reward.lab), label=name)
    return graph.add("reward", views.RewardView(name, reward, arm.cell.vllm), inputs, hints, label=f"{label}/{name}")


def _stream(graph: Graph, arm: _Arm, aligned: Ref, scored: dict[tuple[str, Ref], Ref]) -> dict[str, Any]:
    cell, pools = arm.cell, arm.pools
    assert pools is not None and arm.rollouts is not None and arm.solvable is not None
    selection = relevant_selection(cell.selection)
    measure = selected_measure(cell)
    passes = {} if measure is None else {"nll": "nll"} if MEASURES[measure.kind].needs == "tokens" else {"measure": f"{measure}"}
    if reward := selected_reward(cell):
        passes["reward"] = f"reward.{reward}"
    inputs = {"problems": arm.problems, "solvable": arm.solvable, "rollouts": arm.rollouts, "aligned": aligned}
    for name, pool in pools.items():
        inputs[f"pool.{name}"] = pool
        inputs |= {f"{read}.{name}": scored[what, pool] for read, what in passes.items()}
    label = f"{cell.model.name}/{cell.stream.name}"
    teacher = wanted_teacher(cell) if any(not pool.teacher for pool in drawn_pools(cell)) else ""
    stream = graph.add("stream", views.StreamView(selection, cell.alignment, tuple(pools), measure, teacher), inputs, label=label)
    gathered = {f"pool.{name}": scored["nll", pool] for name, pool in pools.items() if ("nll", pool) in scored}
    rewards = {}
    for name in cell.reward:
        hints = {f"pool.{pool}": scored[f"reward.{name}", ref] for pool, ref in pools.items() if (f"reward.{name}", ref) in scored}
        rewards[name] = _reward(graph, arm, name, stream, label, hints)
    scores = {"problems": arm.problems, "traces": stream, **arm.student}
    stages: dict[str, Any] = {
        "problems": arm.problems,
        "rollouts": arm.rollouts,
        "verdicts": arm.verdicts,
        "solvable": arm.solvable,
        "candidates": pools,
        "aligned": aligned,
        "stream": stream,
        "reward": rewards,
        "perplexity": graph.add("perplexity", views.PerplexityView(cell.model, token_pass(cell)), scores, gathered, label),
        "measure": _measures(graph, cell, scores, pools, scored, label),
    }
    if _judged(cell):
        view = views.RetentionView(cell.judge, cell.retention, cell.retention.seed or 0, vllm=cell.vllm)
        stages["retention"] = graph.add(
            "retention",
            view,
            {"problems": arm.problems, "solvable": arm.solvable, "rollouts": arm.rollouts, "aligned": aligned, "stream": stream},
            label=label,
        )
    return stages


def _measures(
    graph: Graph, cell: Config, scores: dict[str, Ref], pools: dict[str, Ref], scored: dict[tuple[str, Ref], Ref], label: str
) -> dict[str, Ref]:
    """Of a stream: the measures that want a pass of their own, by name."""
    made = {}
    for name, measure in cell.measure.items():
        if MEASURES[measure.kind].needs != "tokens":
            view = views.MeasureView(cell.model, token_pass(cell), relevant_measure(measure))
            hints = {f"pool.{pool}": scored[f"{view.measure}", ref] for pool, ref in pools.items() if (f"{view.measure}", ref) in scored}
            made[name] = graph.add("measure", view, scores, hints, f"{label}/{name}")
    return made


def _judged(cell: Config) -> bool:
    """Retention compares with the native trace, so the native stream itself has none."""
    native = [pool.source for pool in drawn_pools(cell)] == ["student"] and cell.refinement.name == "none"
    return cell.judge.backend != "none" and not native


def _rankings(
    graph: Graph, arms: Sequence[_Arm], streams: Sequence[dict[str, Any]], aligned: dict[tuple[Any, ...], Ref]
) -> dict[tuple[Any, ...], Ref]:
    """One joint ranking of all judged arms of a student, where there are two or more."""
    members: dict[tuple[Any, ...], dict[str, Ref]] = {}
    lead: dict[tuple[Any, ...], _Arm] = {}
    for arm, stages in zip(arms, streams, strict=True):
        if stages and arm.cell.retention.ranking and "retention" in stages and arm.cell.selection.name == "random":
            members.setdefault(arm.group, {})[arm.label] = stages["stream"]
            lead.setdefault(arm.group, arm)
    rankings = {}
    for group, labelled in members.items():
        if len(labelled) < 2:
            continue
        arm = lead[group]
        assert arm.rollouts is not None and arm.solvable is not None
        view = views.RankingView(
            arm.cell.judge, arm.cell.retention, arm.cell.retention.seed or 0, tuple(sorted(labelled)), vllm=arm.cell.vllm
        )
        inputs = {"problems": arm.problems, "solvable": arm.solvable, "rollouts": arm.rollouts, "aligned": aligned[group]}
        inputs |= {f"stream.{label}": ref for label, ref in labelled.items()}
        rankings[group] = graph.add("ranking", view, inputs, label=arm.cell.model.name)
    return rankings


def drops_out(cell: Config) -> bool:
    """Whether a training draws what it leaves out: each rank and each attention kernel draws otherwise."""
    return cell.trainer.dropout > 0 or (cell.trainer.lora is not None and cell.trainer.lora.dropout > 0)


def train_world_size(cell: Config) -> int:
    """Ranks of a training, where the result depends on them by more than rounding; else 0."""
    if cell.trainer.normalisation == "global" and not drops_out(cell):
        return 0
    asked = cell.cluster.train
    gpus = int(asked.gpus.rpartition(":")[2] or 0)
    return asked.nodes * max(asked.tasks, gpus)


def _second_half(graph: Graph, arm: _Arm, stages: dict[str, Any], label: str) -> None:
    """Training and evaluation."""
    cell = arm.cell
    labels = {"study": cell.study.name or "", "cell": label, "model": cell.model.name, "stream": cell.stream.name}
    weights = dict(arm.student)
    stages["problems"] = arm.problems
    if arm.student:
        stages["student"] = arm.student["student"]
    shares = [1.0]
    if stages.get("stream"):
        view = views.TrainView(
            cell.model,
            cell.trainer,
            cell.zero,
            cell.tracking,
            labels,
            train_world_size(cell),
            cell.trainer.attention if cell.trainer.dropout else "",
        )
        stages["train"] = graph.add("train", view, {"stream": stages["stream"], **arm.student}, label=label)
        weights = {"train": stages["train"]}
        shares = sorted({1.0, *cell.trainer.evaluate_at})
    evaluated, drawn = {}, {}
    for share in shares:
        asked = views.ResponsesView(cell.model, drawn_evaluation(cell.evaluation), share, cell.vllm)
        drawn[str(share)] = graph.add("responses", asked, weights, label=label)
        evaluation = views.EvaluateView(cell.evaluation, cell.tracking, labels)
        evaluated[str(share)] = graph.add("evaluate", evaluation, {"responses": drawn[str(share)]}, label=label)
    stages["responses"] = drawn["1.0"]
    stages["evaluate"] = evaluated["1.0"]
    if len(evaluated) > 1:
        stages["evaluate_at"] = evaluated
