"""Figures that the pages quote are those of the table beside the picture, or of the page that has them all."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
OWN = "the student's own traces"
"""A row of the table of selections whose streams come from no pool of others, and are not in the pictures' tables."""


def text(page: str) -> str:
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


def rows_of(table: str) -> list[dict[str, str]]:
    with (IMAGES / table).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def table_of(page: str, first: str) -> list[dict[str, str]]:
    """The Markdown table whose heading begins with `first`, a row a mapping."""
    lines = iter((ROOT / page).read_text(encoding="utf-8").splitlines())
    heading = next(line for line in lines if line.startswith(f"| {first}"))
    names = [name.strip() for name in heading.strip("|").split("|")]
    next(lines)
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append(dict(zip(names, (cell.strip() for cell in line.strip("|").split("|")), strict=True)))
    return found


def number(cell: str) -> float:
    """The number that a cell begins with."""
    return float(cell.split()[0].replace("−", "-"))


def p_of(cell: str) -> float:
    """The p that a cell states; 1 where it states none, for it is given where it is below 0.05."""
    found = re.search(r"p [=<] ([\d.]+)", cell)
    return float(found[1]) if found else 1.0


@pytest.fixture(scope="module")
def judged() -> list[dict[str, str]]:
    """Every measure of every student and setting of the study of teachers; both pictures have the same table."""
    tables = [rows_of(f"teachers-{student}.csv") for student in ("familiar", "foreign")]
    assert tables[0] == tables[1] and len(tables[0]) == 36
    return tables[0]


def test_regret_and_tau_of_each_measure_are_those_of_the_pictures_table(judged: list[dict[str, str]]) -> None:
    shown = table_of("docs/measures.md", "regret in points")
    assert {row["regret in points (τ_b)"] for row in shown} == {row["measure"] for row in judged}
    for row in judged:
        cell = next(one for one in shown if one["regret in points (τ_b)"] == row["measure"])[f"{row['student']} {row['setting']}"]
        assert cell == f"{float(row['regret']):.1f} (τ {float(row['tau']):+.2f})".replace("-", "−"), (row["measure"], row["student"])


def test_which_measures_order_most_pairs_and_which_pick_the_best_arm_or_one_of_the_worst(judged: list[dict[str, str]]) -> None:
    said, page = text("README.md"), text("docs/measures.md")
    orderly = {"mean_logprob", "aslec_drop", "aslec_casl", "scas"}
    assert "Likelihood (mean log-probability, ASLEC) and activations (SCAS) put most pairs of arms in the right order" in said
    assert "the best arm of this student is picked by plain length" in said
    assert "rank-surprisal, LARK and the trained reward model pick one of the worst" in said
    right = {name: [100 * float(row["right"]) for row in judged if row["measure"] == name] for name in (*orderly, "length")}
    shares = [share for name in orderly for share in right[name]]
    assert f"order {min(shares):.0f} to {max(shares):.0f} % of the decided pairs rightly" in page
    assert f"plain length, which orders {min(right['length']):.0f} to {max(right['length']):.0f} % of them" in page
    familiar = [row for row in judged if (row["student"], row["setting"]) == ("lab_familiar", "SFT")]
    by_regret = [row["measure"] for row in sorted(familiar, key=lambda row: float(row["regret"]))]
    assert {row["measure"] for row in familiar if float(row["regret"]) == 0} == {"length"}
    assert set(by_regret[-3:]) == {"rank_surprisal", "lark", "reward (lab_outcome)"}


def test_what_selecting_by_each_measure_came_to_is_what_the_pictures_table_has() -> None:
    shown, said = table_of("docs/measures.md", "selected by"), text("docs/measures.md")
    streams = {
        "lark": " · lark keep={} weights=uniform", "lark, weights=lark": " · lark keep={} weights=lark", "random": " keep={}",
        "reward (lab_outcome)": " · reward keep={}", "joint: reward and mean_logprob": " · joint λ=1 keep={}",
    }  # fmt: skip
    places = [(student, keep) for student in ("foreign", "familiar") for keep in (1, 4)]
    arms = {(student, row["selection"]): row for student in ("foreign", "familiar") for row in rows_of(f"selection-{student}.csv")}
    totals = {}
    for row in shown:
        name = "student+oracle_none" + streams.get(row["selected by"], f" · {row['selected by']} keep={{}}")
        for cell, (student, keep) in zip(list(row.values())[1:], places, strict=True):
            found = arms.pop((student, name.format(keep)), None)
            if row["selected by"] != OWN:
                parts = [f"{float(found[f'total{end}']):.1f}" for end in ("", "_low", "_high")] if found else []
                assert cell == ("{} [{}, {}]".format(*parts) if parts else ""), (row["selected by"], student, keep)
            totals[row["selected by"], student, keep] = number(cell) if cell else math.nan
    assert not arms, "every stream of the pool is in the table"
    joint = "joint: reward and mean_logprob"
    likely = ("mean_logprob", "aslec_drop", "aslec_casl", "scas", joint)
    gains = [totals[name, student, 4] - totals[name, student, 1] for name in likely for student in ("foreign", "familiar")]
    assert f"by {min(gains):.0f} to {max(gains):.0f} points" in said
    assert all(totals[name, "familiar", 4] > totals[OWN, "familiar", 4] for name in likely)
    below = ("reward (lab_outcome)", "lark", "rank_surprisal")
    assert all(totals[name, *at] < totals["random", *at] for name in below for at in places)


def test_what_the_readme_says_of_exposure_is_what_the_lab_s_page_has() -> None:
    shown = table_of("docs/lab.md", "exposure")
    assert [row["exposure"] for row in shown] == ["0 %", "5 %", "10 %", "20 %", "30 %", "50 %"]
    written, refined, aligned = ([row[arm] for row in shown] for arm in ("oracle_synthesized", "oracle_refined", "style_aligned"))
    assert (
        f"costs a student who has never seen its style {-number(written[0]):.0f} points, and earns a familiar one {number(written[-1]):.0f}; "
        f"what it refines costs {-max(map(number, refined)):.0f} to {-min(map(number, refined)):.0f} points" in text("README.md")
    )
    assert sum(p_of(cell) < 0.05 for cell in refined) == 4 and "(in four of the six beyond doubt)" in text("README.md")
    assert not any(p_of(cell) < 0.05 for cell in aligned)


def test_what_the_lab_s_page_says_of_exposure_is_what_its_table_has() -> None:
    shown, said = table_of("docs/lab.md", "exposure"), text("docs/lab.md")
    signs = [number(row["oracle_synthesized"]) > 0 for row in shown]
    assert signs == [False, False, False, True, True, True] and "changing between 10 and 20 %" in said
    better = [number(row["asked for symbolic"]) > number(row["untuned"]) for row in shown]
    assert better == signs and "(from 20 % on)" in said
    lost = [number(row["untuned"]) - number(row["asked for sequential"]) for row in shown]
    assert min(lost) > 0 and f"at 50 % by {lost[-1]:.0f} points" in said
    assert f"below {min(number(row['detectable']) for row in shown):.0f} points would mostly have been missed" in said


def test_what_the_page_on_selection_says_is_what_its_table_has() -> None:
    shown, said = table_of("docs/selection.md", "student"), text("docs/selection.md")
    against = [row["reward − perplexity"] for row in shown]
    assert len(against) == 8 and all(number(cell) < 0 for cell in against) and "It is below perplexity in all eight" in said
    assert sum(p_of(cell) < 0.05 for cell in against) == 3 and "in three of them beyond Holm" in said
    random = [row for row in shown if number(row["reward − random"]) > 0]
    assert [(row["student"], row["pool"]) for row in random] == [("lab_foreign", "student")] * 2
    assert "in six of the eight settings (random in the other two, both lab_foreign with its own traces)" in said
    tied = sorted(row["correlation"] for row in shown)
    assert f"({tied[0]} to {tied[-1]})" in said
