"""The table of cells: one row a cell, in plain values; the same bytes from the same artifacts."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qup.analysis.results.shelf import Shelf
from qup.config.measured import READS_REWARD
from qup.files import write_text
from qup.store import Store
from qup.study import Cell, Study

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDE = 1000
"""Columns that no table needs."""
Row = dict[str, Any]
Means = Mapping[tuple[str, str], tuple[float | None, int]]

SETTINGS = (
    "model",
    "stream",
    "source",
    "refinement",
    "teacher",
    "selection",
    "selected_by",
    "keep",
    "weight",
    "pool_size",
    "share_not_random",
    "share_multi",
)
TRAINING = ("objective", "lr", "batch_size", "seed", "n_problems", "n_train", "mean_tokens", "train_tokens", "steps", "share_truncated")
COMPATIBILITY = ("ppl", "ppl_q1", "ppl_q2", "ppl_q3", "ppl_q4", "nll_per_char", "rank_surprisal")
UTILITY = ("total", "total_pooled")


def cells_table(study: Study, store: Store) -> list[Row]:
    """One row a cell of a study, in its order; None where a value does not apply or is not there.

    The column `missing` names the stages whose results are not in the store.
    """
    return rows_of(study, Shelf(store))


def rows_of(study: Study, shelf: Shelf) -> list[Row]:
    """As cells_table, from a study and its artifacts."""
    rewards = _names(study, "reward")
    benchmarks = list(dict.fromkeys(name for cell in study.cells for name in cell.get("evaluation.benchmarks", {})))
    keys = list(dict.fromkeys(column for cell in study.cells for column, _, _, _ in cell.refs() if column != "evaluate_at"))
    from qup.analysis.results.fitting import cell_means  # scipy, which showing the table does without

    means = cell_means(study.cells, shelf)
    return [_row(cell, shelf, rewards, means, benchmarks, keys) for cell in study.cells]


def _names(study: Study, section: str) -> list[str]:
    return list(dict.fromkeys(name for cell in study.cells for name in cell.get(section, {}) or {}))


def _row(cell: Cell, shelf: Shelf, rewards: Sequence[str], means: Means, benchmarks: Sequence[str], keys: Sequence[str]) -> Row:
    base = cell.is_base
    stream, train = shelf.metrics(cell, "stream"), shelf.metrics(cell, "train")
    perplexity, evaluate = shelf.metrics(cell, "perplexity"), shelf.metrics(cell, "evaluate")
    row: Row = {"cell": cell.label, "model": cell.get("model.name"), "stream": cell.get("stream.name")}
    row |= dict.fromkeys((*SETTINGS[2:], "oracle"))
    if not base:
        asks = cell.get("refinement.name") != "none" or "oracle" in str(cell.get("source.name"))
        row |= {
            "source": cell.get("source.name"),
            "refinement": cell.get("refinement.name"),
            "teacher": cell.get("source.teacher") or None,
            "selection": cell.get("selection.name"),
            "selected_by": _selected_by(cell),
            "keep": stream.get("keep"),
            "weight": cell.get("selection.weight") if cell.get("selection.name") == "joint" else None,
            "pool_size": stream.get("pool_size"),
            "share_not_random": stream.get("share_not_random"),
            "share_multi": stream.get("share_multi"),
            "oracle": cell.get("oracle.name") if asks else None,
        }
    row |= {
        "objective": None if base else cell.get("trainer.objective"),
        "lr": None if base else cell.get("trainer.lr"),
        "batch_size": None if base else cell.get("trainer.batch_size"),
        "seed": cell.get("seed", cell.get("evaluation.sampling.seed" if base else "trainer.seed")),
        "n_problems": stream.get("n"),
        "n_traces": stream.get("n_traces"),
        **{name: train.get(name) for name in TRAINING[5:]},
    }
    if row["seed"] is None:
        row["seed"] = cell.get("evaluation.sampling.seed" if base else "trainer.seed")
    row |= {f"reward_{name}": means.get((cell.label, name), (None, 0))[0] for name in rewards}
    row |= {f"unscored_{name}": means[cell.label, name][1] if (cell.label, name) in means else None for name in rewards}
    row |= {name: perplexity.get(name) for name in COMPATIBILITY}
    row |= {
        "retention": shelf.metrics(cell, "retention").get("retention"),
        "retention_rank": _rank(cell, shelf),
        "n_correct_stream": stream.get("n_correct_stream"),
        "train_nll_first": train.get("train_nll_first"),
        "train_nll_last": train.get("train_nll_last"),
    }
    measured = evaluate.get("benchmarks", {})
    row |= {name: measured.get(name, {}).get("avg") for name in benchmarks}
    row |= {name: evaluate.get(name) for name in UTILITY}
    row |= _teachers(cell, shelf, stream)
    row["missing"] = " ".join(shelf.missing(cell)) or None
    row |= {f"key_{name}": _key(cell, name) for name in keys}
    return row


def _teachers(cell: Cell, shelf: Shelf, stream: Mapping[str, Any]) -> Row:
    """Each teacher's part of the stream's traces, and how often it was right before verification; `name=share` by spaces."""
    counts = stream.get("teachers") or {}
    right = first_right(cell, shelf)
    whole = sum(counts.values())
    return {
        "teachers": " ".join(f"{name}={count / whole:.4g}" for name, count in sorted(counts.items())) or None,
        "teachers_right": " ".join(f"{name}={right[name]:.4g}" for name in sorted(counts) if name in right) or None,
    }


def first_right(cell: Cell, shelf: Shelf) -> dict[str, float]:
    """By teacher of a cell's pools: the share of first answers that are right, before anything was verified away."""
    made: dict[str, float] = {}
    for name in cell.stages.get("candidates", {}):
        for teacher, counts in (shelf.metrics(cell, "candidates", name).get("teachers") or {}).items():
            if counts.get("n"):
                made[teacher] = counts["first_correct"] / counts["n"]
    return made


def _key(cell: Cell, stage: str) -> str | None:
    entry = cell.stages.get(stage)
    if isinstance(entry, Mapping):
        return " ".join(f"{name}={key}" for name, key in entry.items()) or None
    return entry or None


def _rank(cell: Cell, shelf: Shelf) -> float | None:
    """Mean rank of this arm's retention among its student's judged arms; 1 is the most kept."""
    ranks = shelf.metrics(cell, "ranking").get("mean_rank")
    if not isinstance(ranks, Mapping):
        return None
    names = [f"{pool}.{cell.get('refinement.name')}" for pool in cell.stages.get("candidates", {})]
    plain, long = "+".join(names), "+".join(f"{name}.{cell.get('oracle.name')}" for name in names)
    found = ranks.get(cell.get("stream.name"), ranks.get(long, ranks.get(plain)))
    return float(found) if isinstance(found, int | float) else None


def _selected_by(cell: Cell) -> str | None:
    """The measure and the reward model that the selection goes by, where its name does not say."""
    name = cell.get("selection.name")
    measure = cell.get("selection.measure") or "mean_logprob" if name in ("measure", "joint", "pareto") else None
    reward = cell.get("selection.reward") if name in READS_REWARD else None
    return " + ".join(part for part in (reward, measure) if part) or None


def text(value: Any) -> str:
    """A value as it stands in cells.csv: empty for none, shortest form that reads back for floats."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, float):
        return repr(round(value, 10)) if abs(value) >= 1e-4 or value == 0 else repr(value)
    return str(value)


def write_cells_csv(path: Path, rows: Sequence[Row]) -> None:
    """Writes the table. Raises OSError where nothing may be written."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([text(row.get(name)) for name in columns] for row in rows)
    write_text(path, stream.getvalue())


def show_cells(rows: Sequence[Row], console: Console) -> None:
    """The columns that decide, for a terminal; where it is too narrow for all, some are left out and named."""
    shown, left = _shown(rows), []
    for name in ("n_train", "retention", "ppl", *(name for name, _, _ in reversed(shown) if name.startswith("reward_"))):
        if console.measure(_table(rows, shown), options=console.options.update(width=WIDE)).maximum <= console.width:
            break
        left += [header for column, header, _ in shown if column == name]
        shown = [column for column in shown if column[0] != name]
    console.print(_table(rows, shown))
    if left:
        console.print(f"[dim]no room for {', '.join(left)}; cells.csv has them[/]", highlight=False, soft_wrap=True)


def _table(rows: Sequence[Row], shown: Sequence[tuple[str, str, str]]) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 1), collapse_padding=True)
    for name, header, _ in shown:
        table.add_column(
            header,
            justify="left" if name in ("model", "stream", "selection", "selected_by", "objective", "missing") else "right",
            overflow="fold",
        )
    best = {
        model: max((row["total"] for row in rows if row["model"] == model and row["total"] is not None), default=None)
        for model in {row["model"] for row in rows}
    }
    for row in rows:
        style = "bold" if row["total"] is not None and row["total"] == best[row["model"]] else ""
        table.add_row(*[_cell(row.get(name), form) for name, _, form in shown], style=style)
    return table


def _shown(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """(column, header, format) of what fits; a setting that is the same everywhere is left out."""
    columns = [("model", "model", ""), ("stream", "stream", "")]
    for name, header, form in (
        ("oracle", "oracle", ""), ("selection", "select", ""), ("selected_by", "by", ""), ("keep", "keep", "g"), ("weight", "λ", "g"), ("objective", "loss", ""),
        ("lr", "lr", "g"), ("batch_size", "batch", "g"), ("seed", "seed", "g"),
    ):  # fmt: skip
        if name == "objective" or len({row.get(name) for row in rows if row["stream"] != "base"}) > 1:
            columns.append((name, header, form))
    columns.append(("n_train", "n", "g"))
    rewards = [name for row in rows[:1] for name in row if name.startswith("reward_")]
    columns += [(name, name.removeprefix("reward_")[:12], ".2f") for name in rewards[:2]]
    columns += [("ppl", "ppl", ".3g"), ("retention", "kept", ".2f"), ("total", "total %", ".2f")]
    if any(row.get("missing") for row in rows):
        columns.append(("missing", "missing", ""))
    return [
        column for column in columns if column[0] in ("model", "stream", "total") or any(row.get(column[0]) is not None for row in rows)
    ]


def _cell(value: Any, form: str) -> str:
    if value is None:
        return ""
    if form and isinstance(value, int | float):
        return format(value, form)
    from rich.markup import escape

    return escape(str(value))
