"""Fine-tuned weights after their evaluation: figures stay, weights go, and never those somebody still needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from qup import study as studies
from qup.config.schema import Evaluation, Study
from qup.launch import launch, weights
from qup.launch.plan import Plan, make_plan
from qup.launch.registry import write_study
from qup.launch.weights import let_go, lost
from qup.pipeline.graph import Ref
from qup.store import Lease
from tests.analysis.world import World, build_study, lab_cells


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A finished study of one student's two arms, SFT and DFT, planned anew."""
    cells = lab_cells(arms=("slm_rft", "oracle_refined"), objectives=("sft", "dft"), students=(("lab_foreign", 0.0),))
    folder, _ = build_study(tmp_path, World(cells, problems=4), "night")
    made = registered_as(tmp_path, folder, "all")
    assert not made.to_run
    return made


def registered_as(tmp_path: Path, folder: Path, keep: str, **changes: object) -> Plan:
    """The night's cells, registered as the study of that folder with `store.keep_weights=keep`."""
    cells = [
        replace(
            cell,
            store=replace(cell.store, dir=str(tmp_path / "store"), keep_weights=keep),
            study=Study(name=folder.name, dir=str(tmp_path / "multirun")),
            **changes,
        )
        for cell in studies.Study.load(tmp_path / "store" / "studies" / "night").configs()
    ]
    made = make_plan(cells, folder)
    write_study(made, cells, cells)
    return made


def again(plan: Plan, keep: str) -> list[Ref]:
    """What goes at the end of the night's study under another `store.keep_weights`."""
    registered_as(plan.store.root.parent, plan.study_dir, keep)
    return let_go(plan.store, plan.study_dir)


def with_seed(evaluation: Evaluation) -> Evaluation:
    """Another evaluation, which wants the weights again."""
    return replace(evaluation, sampling=replace(evaluation.sampling, seed=9))


def _trained(plan: Plan) -> dict[str, Path]:
    return {cell.label: plan.store.path("train", cell.stages["train"]) for cell in plan.graph.cells if "train" in cell.stages}


def _evaluations(plan: Plan) -> dict[str, Ref]:
    return {cell.label: Ref("evaluate", cell.stages["evaluate"]) for cell in plan.graph.cells if "train" in cell.stages}


def _totals(plan: Plan) -> dict[str, float]:
    totals = {}
    for label, ref in _evaluations(plan).items():
        artifact = plan.store.get(*ref)
        assert artifact is not None
        totals[label] = artifact.metrics["total"]
    assert len(set(totals.values())) == 4
    return totals


def _kept(plan: Plan) -> set[str]:
    return {label for label, path in _trained(plan).items() if (path / "model").is_dir()}


def _forget_evaluations(plan: Plan, tmp_path: Path) -> dict[str, Path]:
    """Takes the evaluations of all trained cells out of the store; where they lie then."""
    aside = {}
    for label, ref in _evaluations(plan).items():
        aside[label] = tmp_path / ref.key
        shutil.move(plan.store.path(*ref), aside[label])
    return aside


def test_all_weights_are_kept_by_default(plan: Plan) -> None:
    assert let_go(plan.store, plan.study_dir) == []
    assert len(_kept(plan)) == 4


def test_the_best_weights_are_those_of_the_highest_total(plan: Plan) -> None:
    totals = _totals(plan)
    assert len(again(plan, "best")) == 3
    assert _kept(plan) == {max(totals, key=lambda label: totals[label])}


def test_none_are_kept_figures_stay_and_nothing_runs_again(plan: Plan) -> None:
    assert len(again(plan, "none")) == 4
    assert _kept(plan) == set()
    for path in _trained(plan).values():
        assert json.loads((path / "manifest.json").read_text())["metrics"]
    after = make_plan([cell.config for cell in plan.graph.cells], plan.study_dir)
    assert not after.to_run
    assert again(plan, "none") == []


@pytest.mark.parametrize("keep", ["none", "best"])
def test_weights_go_with_the_evaluation_that_decides_about_them(plan: Plan, tmp_path: Path, keep: str) -> None:
    totals, evaluations = _totals(plan), _evaluations(plan)
    registered_as(tmp_path, plan.study_dir, keep)
    aside = _forget_evaluations(plan, tmp_path)
    waiting, done = set(totals), []
    for label, path in aside.items():
        shutil.move(path, plan.store.path(*evaluations[label]))
        let_go(plan.store, plan.study_dir, evaluations[label])
        waiting.remove(label)
        done.append(label)
        best = {max(done, key=lambda one: totals[one])} if keep == "best" else set()
        assert _kept(plan) == waiting | best


def test_weights_that_another_study_has_yet_to_evaluate_are_left(plan: Plan) -> None:
    cell = next(cell for cell in plan.graph.cells if "train" in cell.stages)
    other = plan.store.studies / "other"
    nodes = {Ref("evaluate", "0" * 20): (Ref("train", cell.stages["train"]),)}
    studies.Study("other", (), plan.store.root, other, nodes).save()
    assert len(again(plan, "none")) == 3
    assert _kept(plan) == {cell.label}
    shutil.rmtree(other)
    assert len(again(plan, "none")) == 1


def test_weights_that_another_study_keeps_are_left(plan: Plan, tmp_path: Path) -> None:
    other = registered_as(tmp_path, plan.store.studies / "other", "best")
    assert len(again(plan, "none")) == 3
    totals = _totals(plan)
    assert _kept(plan) == {max(totals, key=lambda label: totals[label])}
    registered_as(tmp_path, plan.store.studies / "other", "none")
    assert len(let_go(other.store, other.study_dir)) == 1


def test_weights_whose_evaluation_is_to_be_made_anew_are_left(plan: Plan) -> None:
    evaluations = _evaluations(plan)
    registered_as(plan.store.root.parent, plan.study_dir, "none")
    label, ref = next(iter(evaluations.items()))
    replace(studies.Study.load(plan.study_dir), again={ref: 1.0}).save()
    assert len(let_go(plan.store, plan.study_dir)) == 3
    assert _kept(plan) == {label}
    manifest = plan.store.path(*ref) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"finished": 2.0}))
    assert len(let_go(plan.store, plan.study_dir)) == 1


def test_a_study_that_is_registered_in_the_last_moment_keeps_what_it_needs(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered_as(tmp_path, plan.study_dir, "none")
    looks = []

    def registered(store):
        looks.append(1)
        if len(looks) == 2:
            longer = with_seed(plan.graph.cells[0].config.evaluation)
            registered_as(tmp_path, plan.store.studies / "late", "none", evaluation=longer)
        return real(store)

    real = weights.registered
    monkeypatch.setattr(weights, "registered", registered)
    assert let_go(plan.store, plan.study_dir) == []
    assert len(_kept(plan)) == 4
    for path in _trained(plan).values():
        assert not (path / "pruned").exists()


def test_a_launch_that_lost_weights_while_it_was_planned_trains_them_anew(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered_as(tmp_path, plan.study_dir, "none")
    longer = with_seed(plan.graph.cells[0].config.evaluation)
    cells = [
        replace(
            cell.config,
            evaluation=longer,
            study=Study(name="late", dir=str(tmp_path / "multirun")),
            store=replace(cell.config.store, dir=str(tmp_path / "store")),
        )
        for cell in plan.graph.cells
    ]
    late = make_plan(cells, plan.store.studies / "late")
    assert {ref.kind for ref in late.to_run} == {"responses", "evaluate"}
    assert not lost(late)
    ran = []

    def just_before(*args):
        let_go(plan.store, plan.study_dir)
        return write_study(*args)

    monkeypatch.setattr(launch, "write_study", just_before)
    monkeypatch.setattr(launch, "run_here", lambda plan, *rest: (0, ran.append(plan) or ()))
    launch.launch(cells, console=Console(quiet=True))
    assert sum(ref.kind == "train" for ref in ran[0].to_run) == 4
    assert all(planned.replace for ref, planned in ran[0].to_run.items() if ref.kind == "train")


def test_whoever_has_claimed_a_training_keeps_its_weights(plan: Plan) -> None:
    label, path = next(iter(_trained(plan).items()))
    lease = Lease(plan.store.lease_path("train", path.name), 60.0)
    assert lease.acquire()
    assert len(again(plan, "none")) == 3
    assert _kept(plan) == {label}
    lease.release()


def test_what_a_kill_left_half_taken_goes_in_the_end(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(weights.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            again(plan, "none")
    assert len(_kept(plan)) == 4
    assert len(again(plan, "none")) == 4
    assert _kept(plan) == set()
    assert not make_plan([cell.config for cell in plan.graph.cells], plan.study_dir).to_run


def test_the_best_weights_wait_for_their_own_verdicts(plan: Plan, tmp_path: Path) -> None:
    """Drawn responses alone tell no total."""
    registered_as(tmp_path, plan.study_dir, "best")
    totals, evaluations = _totals(plan), _evaluations(plan)
    best = max(totals, key=lambda label: totals[label])
    shutil.move(plan.store.path(*evaluations[best]), tmp_path / "aside")
    drawn = {cell.label: Ref("responses", cell.stages["responses"]) for cell in plan.graph.cells}
    let_go(plan.store, plan.study_dir, drawn[best])
    assert best in _kept(plan)
    shutil.move(tmp_path / "aside", plan.store.path(*evaluations[best]))
    let_go(plan.store, plan.study_dir)
    assert _kept(plan) == {best}
