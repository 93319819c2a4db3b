"""study.max_oracle_usd holds over a study's life: what was spent counts, whoever plans the rest."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from qup.config.schema import Oracle, Study
from qup.errors import BudgetExceeded
from qup.files import write_json
from qup.launch.commands import retry
from qup.launch.local import run
from qup.launch.plan import check_budget, make_plan
from qup.launch.registry import write_study
from qup.launch.slurm.driver import replan
from qup.launch.slurm.site import Site
from qup.study import Study as Recorded
from tests.helpers.cells import cell

BUDGET = 10.0


@pytest.fixture
def cells(tmp_path):
    oracle = Oracle(name="lab", backend="lab", seed=0, usd_per_million_input=60.0)
    made = [cell(arm, oracle=oracle) for arm in ("oracle_refined", "oracle_synthesized")]
    study = Study(name="test", dir=str(tmp_path / "multirun"), max_oracle_usd=BUDGET)
    return [replace(one, study=study, store=replace(one.store, dir=str(tmp_path / "store"))) for one in made]


def limits(plan):
    return {ref: planned.node.view.max_usd for ref, planned in plan.to_run.items() if ref.kind == "candidates" and planned.cost.oracle_usd}


def folder(cells, tmp_path):
    return tmp_path / "store" / "studies" / "test"


def spend(plan, ref, usd, study="test", **more):
    manifest = {"key": ref.key, "code": "", "metrics": {"spent": {"usd": usd}}, "study": study, "files": {}, "digest": "", **more}
    write_json(plan.store.path(*ref) / "manifest.json", manifest)


def test_what_is_left_is_shared_by_what_is_left_to_do(cells, tmp_path):
    fresh = make_plan(cells, folder(cells, tmp_path))
    first, second = limits(fresh)
    assert sum(limits(fresh).values()) == pytest.approx(BUDGET)
    spend(fresh, first, 6.0)
    assert limits(make_plan(cells, folder(cells, tmp_path))) == {second: pytest.approx(4.0)}


def test_a_retry_plans_from_the_record_with_the_same_limit(cells, tmp_path):
    plan = make_plan(cells, folder(cells, tmp_path))
    write_study(plan, cells, cells)
    recorded = Recorded.load(plan.study_dir).configs()
    assert limits(make_plan(recorded, plan.study_dir)) == pytest.approx(limits(plan))
    assert None not in limits(plan).values()
    waves = replan(Site("test", plan.study_dir, plan.store, cells[0].cluster, None, tmp_path))
    assert limits(waves) == pytest.approx(limits(plan)), "of a driver's later waves, and of a retry on SLURM"


def test_an_unfinished_stage_keeps_what_it_has_spent_within_its_limit(cells, tmp_path):
    plan = make_plan(cells, folder(cells, tmp_path))
    first, second = limits(plan)
    ledger = plan.store.work(*first) / "oracle"
    ledger.mkdir(parents=True)
    (ledger / "host-1.ledger").write_text("s k\na k 10 10 7.0\n")
    again = limits(make_plan(cells, folder(cells, tmp_path)))
    assert sum(again.values()) == pytest.approx(BUDGET)
    assert again[first] > 7.0 > again[second]


def test_what_another_study_paid_for_is_not_counted(cells, tmp_path):
    plan = make_plan(cells, folder(cells, tmp_path))
    first, second = limits(plan)
    spend(plan, first, 6.0, study="other")
    assert limits(make_plan(cells, folder(cells, tmp_path))) == {second: pytest.approx(BUDGET)}


def test_a_launch_is_refused_where_it_and_what_was_spent_are_above_the_limit(cells, tmp_path):
    plan = make_plan(cells, folder(cells, tmp_path))
    check_budget(plan, cells[0])
    first, _ = limits(plan)
    spend(plan, first, BUDGET - 1e-6)
    with pytest.raises(BudgetExceeded, match=r"study.max_oracle_usd=10.0: .* beside \$10.00 that the study has spent already"):
        check_budget(make_plan(cells, folder(cells, tmp_path)), cells[0])


def test_what_asks_no_oracle_goes_on_though_the_budget_is_used_up(cells, tmp_path):
    plan = make_plan(cells, folder(cells, tmp_path))
    for ref in limits(plan):
        spend(plan, ref, BUDGET)
    rest = [replace(one, judge=replace(one.judge, backend="lab")) for one in cells]
    check_budget(make_plan(rest, folder(cells, tmp_path)), rest[0])


def test_what_a_result_cost_that_turned_out_corrupt_is_spent_all_the_same(cells, tmp_path):
    plan = make_plan(cells, folder(cells, tmp_path))
    first, second = limits(plan)
    spend(plan, first, 6.0)
    plan.store.quarantine(*first)
    again = make_plan(cells, folder(cells, tmp_path))
    assert sum(again.spent.values()) == pytest.approx(6.0)
    assert limits(again)[second] < 4.0 and sum(limits(again).values()) == pytest.approx(BUDGET)


def test_a_retry_here_runs_with_the_same_limit_and_is_refused_where_too_little_is_left(cells, tmp_path, monkeypatch):
    plan = make_plan(cells, folder(cells, tmp_path))
    write_study(plan, cells, cells)
    ran = []
    monkeypatch.setattr(retry, "run_here", lambda plan, *rest: (0, ran.append(limits(plan)))[:1])

    def again():
        return retry.retry("test", tmp_path / "multirun", Console(quiet=True), stages=[], code="frozen", mem=None, time=None)

    assert again() == 0
    assert ran == [pytest.approx(limits(plan))]
    spend(plan, next(iter(limits(plan))), BUDGET - 1e-6)
    with pytest.raises(BudgetExceeded):
        again()
    assert len(ran) == 1


def test_what_is_computed_anew_for_it_was_corrupt_runs_with_the_same_limit(cells, tmp_path, monkeypatch):
    plan = make_plan(cells, folder(cells, tmp_path))
    ran = []

    class Run:
        """Its first run finds something corrupt."""

        def __init__(self, plan, *rest):
            self.corrupt = [] if ran else [("problems", "k")]
            ran.append(limits(plan))
            self.board = SimpleNamespace(of=lambda *states: [])

        def run(self):
            pass

    monkeypatch.setattr(run, "LocalRun", Run)
    for name in ("let_go", "conclude"):
        monkeypatch.setattr(run, name, lambda *args: {})
    assert run.run_here(plan, cells, Console(quiet=True))[0] == 0
    assert ran == [pytest.approx(limits(plan))] * 2
