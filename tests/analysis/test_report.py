"""The report as a whole: complete, safe, deterministic, and useful where results are missing or odd."""

from __future__ import annotations

import csv
import html
import json
import math
import os
import re
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from qup.analysis.browser import edits, split_like
from qup.analysis.cells import cells_table, show_cells, text, write_cells_csv
from qup.analysis.compare import show_comparison
from qup.analysis.figures import log_axis
from qup.analysis.page import embedded, render
from qup.analysis.published import is_paper
from qup.analysis.report import build, pictures
from qup.analysis.study import Shelf, Study
from qup.analysis.survey import AxisPoint, survey
from qup.analysis.table import tex
from qup.analysis.tables import all_tables
from qup.config.compose import Composer
from qup.config.schema import Benchmark, Config, LabProblems, LabStudent, Model, Selection
from qup.config.sweeps import expand
from qup.errors import InputError, StoreError
from qup.launch.registry import read_study
from qup.launch.study import finish
from qup.store import Store
from tests.analysis.world import SURPRISE, World, build_study, lab_cells
from tests.helpers.cells import cell

ONE = {"objectives": ("sft",), "students": (("lab_foreign", 0.0),)}
COLUMNS = [
    "model",
    "stream",
    "source",
    "refinement",
    "selection",
    "weight",
    "pool_size",
    "share_not_random",
    "objective",
    "lr",
    "batch_size",
    "seed",
    "n_problems",
    "n_train",
    "mean_tokens",
    "train_tokens",
    "steps",
    "share_truncated",
    "ppl",
    "ppl_q1",
    "ppl_q2",
    "ppl_q3",
    "ppl_q4",
    "nll_per_char",
    "rank_surprisal",
    "retention",
    "n_correct_stream",
    "train_nll_first",
    "train_nll_last",
    "total",
    "total_pooled",
    "reward_lab_outcome",
    "reward_lab_steps",
    "easy",
    "hard",
    "key_train",
    "key_stream",
    "key_evaluate",
    "key_rollouts",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> tuple[Path, Store, Path]:
    root = tmp_path_factory.mktemp("lab")
    folder, store = build_study(root, World(lab_cells(), steps=30))
    return folder, store, build(folder, store, root / "report")


def told(folder: Path, store: Store) -> str:
    """The page without pictures, which are drawn but not written: the slow part."""
    made = survey(Study.load(folder), Shelf(store))
    pictures(made)
    return render(made, all_tables(made, published=False), [], {})


def content(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_the_table_of_cells_has_the_promised_columns(lab) -> None:
    folder, store, page = lab
    with (page.parent / "cells.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert set(COLUMNS) <= set(rows[0])
    assert len(rows) == 22
    base = [row for row in rows if row["stream"] == "base"]
    assert len(base) == 2
    assert all(row["objective"] == row["source"] == row["ppl"] == "" for row in base)
    assert all(row["total"] for row in rows)
    assert {row["missing"] for row in rows} == {""}
    record = read_study(folder)
    assert record is not None
    assert len(cells_table(record, store)) == 22


def test_the_table_fits_a_terminal(lab, capsys) -> None:
    record = read_study(lab[0])
    assert record is not None
    show_cells(cells_table(record, lab[1]), Console(width=120))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 23
    assert max(map(len, lines)) <= 120


def test_floats_read_back_and_nothing_is_empty() -> None:
    assert [text(value) for value in (None, math.nan, 0.1 + 0.2, 3e-7, 5, "a", True)] == ["", "", "0.3", "3e-07", "5", "a", "True"]


def test_everything_promised_is_written(lab) -> None:
    out = lab[2].parent
    assert {path.name for path in out.iterdir()} == {"report.html", "cells.csv", "summary.json", "figures", "tables"}
    figures, tables = sorted((out / "figures").iterdir()), sorted((out / "tables").iterdir())
    assert {path.suffix for path in figures} == {".svg", ".png"}
    assert len(figures) == 2 * len({path.stem for path in figures})
    assert {path.suffix for path in tables} == {".csv", ".md", ".tex"}
    assert {
        "arms",
        "contrasts",
        "benchmarks",
        "segments",
        "tokens",
        "token_shift",
        "correlations",
        "training",
        "losses",
        "costs",
        "provenance",
    } <= {p.stem for p in tables}
    summary = json.loads((out / "summary.json").read_text())
    assert [one["student"] for one in summary["verdicts"]] == ["lab_foreign", "lab_familiar"]
    assert summary["toy_world"] is True


class Page(HTMLParser):
    """Collects what matters of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.labels: list[str] = []
        self.scripts = 0
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        self.scripts += tag == "script"
        if "id" in values:
            self.ids.append(values["id"])
        for name in ("src", "href", "xlink:href", "data", "action"):
            if name in values:
                self.links.append(values[name])
        if values.get("role") == "img":
            self.labels.append(values.get("aria-label", ""))


def test_the_page_needs_no_network_and_every_picture_is_told_in_words(lab) -> None:
    page = Page()
    page.feed(content(lab[2]))
    assert all(link.startswith("#") for link in page.links)
    assert len(page.labels) == len(list((lab[2].parent / "figures").glob("*.svg")))
    assert all(len(label) > 40 and "lab_" in label for label in page.labels)
    sections = [link[1:] for link in re.findall(r"<nav.*?</nav>", content(lab[2]), re.DOTALL)[0].split('href="')[1:]]
    assert {link.split('"')[0] for link in sections} <= set(page.ids)
    assert "default-src 'none'" in content(lab[2])
    assert "A toy world" in content(lab[2])
    assert "first replicate" not in content(lab[2])


def test_html_in_traces_is_text(lab) -> None:
    page = Page()
    page.feed(content(lab[2]))
    assert page.scripts == 2
    assert "<script>alert" not in content(lab[2])
    assert "<b>bold" not in content(lab[2])
    assert embedded({"a": "</script><!--\u2028"}) == '{"a":"\\u003c/script\\u003e\\u003c!--\\u2028"}'


def test_two_builds_are_the_same_bytes(lab, tmp_path) -> None:
    again = build(lab[0], lab[1], tmp_path / "again")
    for path in sorted(lab[2].parent.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again.parent / path.relative_to(lab[2].parent)).read_bytes(), path.name


def test_a_running_study_is_reported_with_what_is_missing(tmp_path) -> None:
    world = World(lab_cells(**ONE), skip=lambda node: node.kind in ("evaluate", "retention") and "refined" in node.label)
    folder, store = build_study(tmp_path, world)
    page = build(folder, store)
    assert page == folder / "report" / "report.html"
    assert "cells lack results" in content(page)
    assert "not measured" in content(page)
    rows = list(csv.DictReader((page.parent / "cells.csv").open()))
    assert next(row["missing"] for row in rows if row["stream"] == "oracle_refined") == "retention evaluate"


@pytest.mark.parametrize(
    "kinds", [("train",), ("perplexity",), ("reward",), ("stream",), ("evaluate", "train", "reward", "perplexity", "stream")]
)
def test_any_stage_may_be_missing(kinds, tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft", "oracle_refined")), skip=lambda node: node.kind in kinds))
    assert "lack results" in told(folder, store)


def test_an_empty_store_and_a_study_of_nothing(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE), skip=lambda node: True))
    assert "Not measured yet" in content(build(folder, store))
    with pytest.raises(InputError, match=r"study\.json"):
        build(tmp_path, store)


def test_a_store_that_was_moved_is_read_where_it_is(tmp_path) -> None:
    build_study(tmp_path / "a", World(lab_cells(**ONE, arms=("slm_rft",))))
    shutil.move(tmp_path / "a" / "store", tmp_path / "elsewhere")
    store = Store(tmp_path / "elsewhere")
    assert "2 of 2 cells complete" in told(store.studies / "test", store)


def test_a_corrupt_artifact_counts_as_missing_and_is_named(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft", "oracle_refined"))))
    artifact = (
        next(store.artifacts_of("evaluate"))
        if hasattr(store, "artifacts_of")
        else next(a for a in store.artifacts() if a.stage == "evaluate")
    )
    target = artifact.path / "responses.parquet"
    data = bytearray(target.read_bytes())
    data[100] ^= 255
    target.write_bytes(data)
    assert f"evaluate/{artifact.key} cannot be read" in told(folder, store)
    assert artifact.path.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_another_users_folder_is_a_clear_error(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft",))))
    folder.chmod(0o555)
    try:
        with pytest.raises(StoreError, match="--out"):
            build(folder, store)
    finally:
        folder.chmod(0o755)


def test_a_place_that_is_no_folder_is_a_clear_error(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft",))))
    (tmp_path / "file").write_text("")
    for make in (build, partial(finish, console=Console(quiet=True))):
        with pytest.raises(StoreError, match="--out"):
            make(folder, store, out=tmp_path / "file")


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (("slm_rft",), "a single arm"),
        (("oracle_refined", "style_aligned"), "the baseline slm_rft is not among the arms"),
        ((), "No cell is trained"),
    ],
)
def test_odd_studies_say_what_they_lack(arms, said, tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=arms)))
    assert said in told(folder, store)


def test_no_variance_and_small_benchmarks_are_told(tmp_path) -> None:
    world = World(
        lab_cells(**ONE, arms=("slm_rft", "oracle_refined"), benchmarks={"tiny": 30}),
        skills={"base": -90, "slm_rft": 90, "oracle_refined": 90},
    )
    page = told(*build_study(tmp_path, world))
    assert "tiny (30 problems)" in page
    assert "exact binomial bound" in page


def test_scores_that_are_no_numbers_are_left_out_and_counted(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft", "oracle_refined"))))
    from tests.analysis.test_verdict import _reseal

    artifact = next(a for a in store.artifacts() if a.stage == "reward")
    table = pq.read_table(artifact.path / "scores.parquet")
    scores = table["score"].to_pylist()
    scores[:3] = [math.nan, math.inf, math.nan]
    pq.write_table(table.set_column(table.column_names.index("score"), "score", pa.array(scores)), artifact.path / "scores.parquet")
    _reseal(artifact.path)
    assert "reward scores are no finite numbers" in told(folder, store)


def test_a_selection_study_has_its_frontier(tmp_path) -> None:
    joint = [Selection(name="joint", reward="lab_outcome", weight=weight, seed=0) for weight in (0.5, 1.0, 2.0)]
    ends = [Selection(seed=0), Selection(name="reward", reward="lab_outcome", seed=0), Selection(name="perplexity", seed=0)]
    cells = lab_cells(**ONE, arms=("slm_rft",), selections=[*ends, *joint], dev={"easy": 20}, benchmarks={"easy": 150, "hard": 80})
    page = build(*build_study(tmp_path, World(cells)))
    assert "not used to select" in content(page)
    assert "kept apart" in content(page)
    assert "correlated at +0.21" in content(page)
    table = (page.parent / "tables" / "selection_lab_foreign_sft_slm_rft.md").read_text()
    order = re.findall(r"\| (slm_rft[^|]*?) \|", table)
    assert order == ["slm_rft", "slm_rft · reward", *[f"slm_rft · joint λ={w}" for w in ("0.5", "1", "2")], "slm_rft · perplexity"]
    summary = json.loads((page.parent / "summary.json").read_text())
    assert len(summary["selection"][0]["contrasts"]) == 5 + 4 + 4


def test_a_grid_and_an_axis_have_their_pictures(tmp_path) -> None:
    def names(world: World, root: Path) -> set[str]:
        folder, store = build_study(root, world)
        return {picture.name for picture in pictures(survey(Study.load(folder), Shelf(store)))}

    trainers = [{"lr": lr, "batch_size": batch} for lr in (2e-5, 5e-5) for batch in (128, 256)]
    grid = names(World(lab_cells(**ONE, arms=("slm_rft", "oracle_refined"), trainers=trainers)), tmp_path / "g")
    assert "heatmap_lab_foreign_sft" in grid
    students = [("lab", share) for share in (0.0, 0.1, 0.5)]
    axis = names(World(lab_cells(arms=("slm_rft", "oracle_refined"), objectives=("sft",), students=students)), tmp_path / "a")
    assert "axis_lab_sft" in axis
    assert "forest_lab_exposure_0_1" in axis


def exposure_cells(exposures: tuple[float, ...]) -> list[Config]:
    """The exposure experiment's own cells, of some exposures and two arms, on few problems."""
    composer = Composer.over()
    cells = composer.grid(expand(composer, ["experiment=exposure"]))
    kept = [
        one
        for one in cells
        if one.model.lab and one.model.lab.exposure in exposures and one.stream.name in ("base", "slm_rft", "oracle_refined")
    ]
    small = {"easy": Benchmark(lab=LabProblems(n=60)), "hard": Benchmark(lab=LabProblems(n=40))}
    return [replace(one, evaluation=replace(one.evaluation, benchmarks=small)) for one in kept]


def test_the_exposure_experiment_has_the_picture_of_when_the_paradox_holds(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(exposure_cells((0.0, 0.1, 0.5))), "exposure")
    made = survey(Study.load(folder), Shelf(store))
    assert [(one.family, one.axis, one.x, one.student) for one in made.axis] == [
        ("exposure", "exposure", x, f"exposure_{int(100 * x):02d}") for x in (0.0, 0.1, 0.5)
    ]
    for point in made.axis:
        assert point.base is not None
        assert [one.arm for one in point.prompted] == ["base template=lab_sequential", "base template=lab_symbolic"]
        assert {len(one.runs) for one in (point.base, *point.prompted)} == {3}
        assert (point.solvable, point.contrasts[0].total.seeds) == (45, 3)
        assert 0 < point.detectable < 100
    (picture,) = [one for one in pictures(made) if one.section == "axis"]
    assert picture.name == "axis_exposure_sft"
    for said in ("exposure 0.1: oracle_refined", "untuned, prompted: lab_symbolic", "45 solvable problems", "detectable"):
        assert said in picture.alt
    page = content(build(folder, store))
    assert page.index('id="fig-axis_exposure_sft"') < page.index('<article class="card first">')
    losses = {(row["where"], row["what"]): row for row in csv.DictReader((folder / "report" / "tables" / "losses.csv").open())}
    assert float(losses["solvable of exposure_00", "problems that the student never solved"]["of"]) == 3 * 52
    told_to_programs = json.loads((folder / "report" / "summary.json").read_text())["axis"]
    assert [(one["value"], one["n_solvable"], len(one["prompted"])) for one in told_to_programs] == [(x, 45, 2) for x in (0.0, 0.1, 0.5)]
    assert html.unescape(page).count("Each arm's first replicate.") == 3
    header = (folder / "report" / "tables" / "axis.csv").read_text().splitlines()[0].split(",")
    assert {"base", "base_template=lab_symbolic", "n_solvable", "oracle_refined_to_baseline", "detectable"} <= set(header)


def test_students_of_other_weights_or_of_two_settings_make_no_axis(tmp_path) -> None:
    def axes(models: list[Model]) -> list[AxisPoint]:
        cells = [replace(cell(arm, "sft"), model=model) for model in models for arm in ("slm_rft", "oracle_refined")]
        folder, store = build_study(tmp_path / str(len(list(tmp_path.iterdir()))), World(cells, problems=4, length=4, steps=2))
        return survey(Study.load(folder), Shelf(store)).axis

    assert len(axes([Model(name=f"m{x}", lab=LabStudent(exposure=x)) for x in (0.0, 0.1, 0.2)])) == 3
    assert not axes([Model(name=f"m{x}", lab=LabStudent(exposure=x)) for x in (0.0, 0.1)])
    assert not axes([Model(name=f"m{x}", lab=LabStudent(exposure=x, noise=x)) for x in (0.0, 0.1, 0.2)])
    assert not axes([Model(name=f"m{x}{y}", lab=LabStudent(exposure=x, noise=y)) for x in (0.0, 0.1, 0.2) for y in (0.0, 0.1, 0.2)])
    assert not axes([Model(name=f"m{x}", path=f"org/m{x}", revision="0" * 40, context=1024 * x) for x in (1, 2, 3)])


def test_what_was_dropped_cut_and_asked_again_is_told(lab) -> None:
    losses = (lab[2].parent / "tables" / "losses.csv").read_text()
    for said in (
        "rollouts of lab_foreign,rollouts cut at the length limit,6.0,416.0",
        "rollouts of lab_foreign,right rollouts among these (in no stream),2.0,416.0",
        "rollouts of lab_foreign,prompts that leave less of the context than the length limit,4.0,52.0",
        "solvable of lab_foreign,problems that the student never solved,7.0,52.0",
        'Oracle answers not accepted, asked again or given up",4.0,44.0',
        "Oracle requests sent again,4.0,44.0",
        "problems dropped from every stream,5.0,45.0",
    ):
        assert said in losses, said


def test_refinements_have_their_edit_distance(lab) -> None:
    rows = list(csv.DictReader((lab[2].parent / "tables" / "arms.csv").open()))
    edited = {row["arm"]: row["edit_distance"] for row in rows if row["student"] == "lab_foreign" and row["setting"] != "DFT"}
    assert float(edited["oracle_refined"]) == pytest.approx(SURPRISE["oracle_refined"] / 4)
    assert edited["slm_rft"] == edited["oracle_synthesized"] == ""


def test_published_figures_stand_beside_ours_in_paper_studies(tmp_path) -> None:
    """Each beside the same stream, by the same Oracle, at the same learning rate and batch size; else beside nothing."""
    trainers = [{"lr": lr, "batch_size": batch} for lr in (2e-5, 5e-5) for batch in (128, 256)]
    cells = lab_cells(arms=("slm_rft",), objectives=("dft",), students=(("qwen2_5_math_1_5b", 0.0),), trainers=trainers)
    aligned = lab_cells(arms=("style_aligned",), objectives=("dft",), students=(("qwen2_5_math_1_5b", 0.0),), trainers=trainers[-1:])
    cells += [replace(aligned[1], oracle=replace(aligned[1].oracle, name=name)) for name in ("gpt-5.2", "qwen2.5-math-72b")]
    other = lab_cells(arms=("slm_rft",), objectives=("dft",), students=(("a_other", 0.3),), trainers=trainers[-1:])
    folder, store = build_study(tmp_path, World([*other, *cells]), "paper_table1")
    made = survey(Study.load(folder), Shelf(store))
    tables = {table.name: table for table in all_tables(made, published=is_paper(made.study.name))}
    page = render(made, list(tables.values()), [], {})
    assert "as published" in page
    assert "37.06" in page
    ours = {row["stream"]: row["dft_total_ours"] for row in csv.DictReader(tables["published"].csv().splitlines())}

    def total(arm: str, batch: int) -> float:
        mine = [one for one in made.summaries if (one.run.cell.get("model.name"), one.arm) == ("qwen2_5_math_1_5b", arm)]
        (found,) = [one for one in mine if (one.run.setting.lr, one.run.setting.batch_size) == (5e-5, batch)]
        return found.total.value

    assert float(ours["SLM-RFT"]) == pytest.approx(total("slm_rft", 256))
    assert float(ours["Style-Aligned (Qwen)"]) == pytest.approx(total("style_aligned oracle=qwen2.5-math-72b", 256))
    assert float(ours["Style-Aligned (GPT-5.2)"]) == pytest.approx(total("style_aligned oracle=gpt-5.2", 256))
    assert ours["Oracle-Refined"] == ours["Oracle-Synthesized"] == ""
    (row,) = csv.DictReader(tables["published_grid"].csv().splitlines())
    assert (row["stream"], row["total_published"]) == ("slm_rft", "39.36")
    assert float(row["total_ours"]) == pytest.approx(total("slm_rft", 128))


def test_latex_and_markdown_are_escaped() -> None:
    assert tex("a_b & 5 % −1") == r"a\_b \& 5 \% $-$1"


def test_pieces_of_a_trace_join_to_it() -> None:
    for words, tokens in (
        ("To find it, é 12", ["To", " find", " it", ",", "\ufffd", "\ufffd", " 12"]),
        ("a  b\nc", ["a", "b", "c"]),
        ("abc", ["x", "y"]),
        ("", []),
    ):
        pieces = split_like(words, tokens)
        assert len(pieces) == len(tokens)
        assert "".join(pieces) == words


@pytest.mark.parametrize(("low", "high"), [(1.1, 1.9), (1.0, 40.0), (0.3, 1e5), (1.0, 1e9)])
def test_a_log_axis_has_labels_and_they_do_not_collide(low, high) -> None:
    figure = Figure()
    axes = figure.add_subplot()
    log_axis(axes, "x")
    axes.set_xlim(low, high)
    assert 2 <= sum(low <= tick <= high for tick in axes.get_xticks()) <= 10


def test_edits_name_what_is_new_and_what_is_gone() -> None:
    added, removed = edits("we add 3 and 4", "we take 3 and 4 now")
    assert ["we take 3 and 4 now"[low:high].strip() for low, high in added] == ["take", "now"]
    assert [words for _, words in removed] == ["add"]


def test_comparison_refuses_by_name_and_pairs_what_agrees(tmp_path, capsys) -> None:
    first, _ = build_study(tmp_path / "a", World(lab_cells(**ONE)), "one")
    second, _ = build_study(tmp_path / "b", World(lab_cells(**ONE, arms=("slm_rft",)), skills={"slm_rft": 2.0}), "two")
    other, _ = build_study(tmp_path / "c", World(lab_cells(**ONE, benchmarks={"easy": 61, "hard": 30})), "three")
    assert show_comparison(first, second, Console(width=140)) == 0
    out = capsys.readouterr().out
    assert re.search(r"slm_rft +SFT.*\]$", out, re.MULTILINE)
    assert re.search(r"base .*the same results$", out, re.MULTILINE), "equal outcomes of equal problems"
    assert "only in one: " in out
    with pytest.raises(InputError, match=r"benchmark easy differs: lab\.n 60 against 61$"):
        show_comparison(first, other, Console())


def test_other_fixed_problem_sets_and_other_prompts_are_not_compared(tmp_path) -> None:
    first, _ = build_study(tmp_path / "a", World(lab_cells(**ONE, arms=("slm_rft",))), "one")
    other, _ = build_study(tmp_path / "b", World(lab_cells(**ONE, arms=("slm_rft",)), problems=38), "two")
    with pytest.raises(InputError, match=r"fixed problem sets differ for lab_foreign: 40 problems against 38; 2 are .*p0038, p0039"):
        show_comparison(first, other, Console())
    same, store = build_study(tmp_path / "c", World(lab_cells(**ONE, arms=("slm_rft",))), "three")
    for artifact in list(store.artifacts()):
        if artifact.stage == "evaluate":
            path = artifact.path / "manifest.json"
            content = json.loads(path.read_text())
            content["metrics"]["template_hash"] = "f" * 64
            path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="prompts differ for lab_foreign under template"):
        show_comparison(first, same, Console())


def test_surprise_that_is_no_number_is_shown_as_none(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft", "oracle_refined"))))
    from tests.analysis.test_verdict import _reseal

    for artifact in [one for one in store.artifacts() if one.stage == "perplexity"]:
        table = pq.read_table(artifact.path / "traces.parquet")
        broken = [[math.nan, *values[1:]] for values in table["nll_T"].to_pylist()]
        column = pa.array(broken, table.schema.field("nll_T").type)
        pq.write_table(table.set_column(table.column_names.index("nll_T"), "nll_T", column), artifact.path / "traces.parquet")
        _reseal(artifact.path)
    (embedded_data,) = re.findall(r'id="trace-data">(.*?)</script>', told(folder, store), re.DOTALL)
    trace = json.loads(embedded_data)[0]["problems"][0]["traces"][0]
    assert trace["tokens"][0][1] is None
    assert trace["tokens"][1][1] is not None


def test_cells_are_written_beside_and_renamed(tmp_path) -> None:
    write_cells_csv(tmp_path / "x" / "cells.csv", [{"a": 1, "b": None}, {"a": 2.5, "c": "y,z"}])
    assert (tmp_path / "x" / "cells.csv").read_text() == 'a,b,c\n1,,\n2.5,,"y,z"\n'
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["cells.csv"]


def in_chromium(page: Path, profile: Path) -> subprocess.CompletedProcess[str]:
    """The page's DOM after its scripts have run, and on stderr what they wrote to the console."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    command = [
        str(browser), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000",
        f"--user-data-dir={profile}", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.browser
@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("chromium-browser")), reason="chromium is not installed")
def test_on_a_phone_only_tables_scroll_sideways(lab, tmp_path) -> None:
    """The page in a frame of 390 points: nothing of it is wider than that."""
    frame = tmp_path / "phone.html"
    measure = "['scrollWidth', 'clientWidth'].map(name => f.contentDocument.documentElement[name]).join(' of ')"
    frame.write_text(
        f'<iframe id="f" width="390" height="800" style="border:0" srcdoc="{html.escape(content(lab[2]))}"></iframe>'
        f"<script>f.onload = () => setTimeout(() => document.title = {measure}, 300)</script>",
        encoding="utf-8",
    )
    shown = in_chromium(frame, tmp_path)
    ((wide, room),) = re.findall(r"<title>(\d+) of (\d+)</title>", shown.stdout)
    assert 350 < int(room) <= 390
    assert wide == room


@pytest.mark.browser
@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("chromium-browser")), reason="chromium is not installed")
def test_a_browser_shows_it_without_a_console_error(lab, tmp_path) -> None:
    shown = in_chromium(lab[2], tmp_path)
    assert 'class="t new"' in shown.stdout
    assert "&lt;i&gt;more&lt;/i&gt;" in shown.stdout
    errors = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    assert not errors, errors
