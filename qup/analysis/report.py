"""The report: one page without network, and its figures, tables and summary beside it, from the store alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qup.analysis.figures.axis import axis_pictures
from qup.analysis.figures.benchmarks import benchmark_picture
from qup.analysis.figures.differences import forest
from qup.analysis.figures.heat import heat_maps
from qup.analysis.figures.judged import judged_pictures
from qup.analysis.figures.picture import Picture, slug
from qup.analysis.figures.scatter import perplexity_picture, reward_picture
from qup.analysis.figures.selection import frontier_pictures
from qup.analysis.figures.style import png_of, svg_of
from qup.analysis.figures.tokens import segment_picture, shift_picture
from qup.analysis.figures.training import curve_pictures, kept_picture
from qup.analysis.findings.survey import Survey, survey
from qup.analysis.gallery import note
from qup.analysis.page.render import render
from qup.analysis.results.cells import write_cells_csv
from qup.analysis.results.shelf import Shelf
from qup.analysis.summary import summary_of
from qup.analysis.tables.accounts import costs_table, losses_table, origins_table
from qup.analysis.tables.arms import arms_table, benchmarks_table, contrasts_table
from qup.analysis.tables.axis import axis_table
from qup.analysis.tables.correlations import ties_table
from qup.analysis.tables.judged import judged_table
from qup.analysis.tables.published import published_grid, published_table
from qup.analysis.tables.published_figures import is_paper
from qup.analysis.tables.selection import selection_table
from qup.analysis.tables.table import Table
from qup.analysis.tables.teachers import teachers_table
from qup.analysis.tables.tokens import segments_table, shifts_table, tokens_table
from qup.analysis.tables.training import training_table
from qup.errors import StoreError
from qup.files import write_bytes
from qup.store import Store
from qup.study import Study


def build(folder: Path, store: Store, out: Path | None = None) -> Path:
    """Writes report.html, cells.csv, summary.json, figures/ and tables/ of the study in `folder`; returns the page's path.

    `out` is the folder to write to, `<folder>/report` by default. Results that are not in the store are named as missing.
    Raises InputError where `folder` holds no study, StoreError where nothing may be written.
    """
    study = Study.load(folder)
    made = survey(study, Shelf(store))
    out = out if out is not None else folder / "report"
    with writing(out):
        return write(made, out)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turns what goes wrong with files under `out` into a StoreError that says what to do."""
    try:
        yield
    except PermissionError as error:
        raise StoreError(f"{error.filename or out}: may not be written; give another place with --out DIR") from None
    except OSError as error:
        raise StoreError(f"{out}: the report cannot be written ({error.strerror or error}); give another place with --out DIR") from None


def write(made: Survey, out: Path) -> Path:
    """Writes an analysed study."""
    tables = all_tables(made, published=is_paper(made.study.name))
    figures = pictures(made)
    csvs = {_file_name(table): table.csv().encode() for table in tables}
    svgs = {picture.name: svg_of(picture.figure) for picture in figures}
    out.mkdir(parents=True, exist_ok=True)
    write_cells_csv(out / "cells.csv", made.rows)
    kept = {"figures": set[str](), "tables": set[str]()}
    for picture in figures:
        _put(out / "figures" / f"{picture.name}.svg", svgs[picture.name].encode(), kept["figures"])
        source = note(made.study.name, picture.name, picture.table, csvs[picture.table]) if picture.table in csvs else ""
        _put(out / "figures" / f"{picture.name}.png", png_of(picture.figure, source), kept["figures"])
    for table in tables:
        name = _file_name(table)
        for suffix, content in (("csv", csvs[name]), ("md", table.markdown().encode()), ("tex", table.latex().encode())):
            _put(out / "tables" / f"{name}.{suffix}", content, kept["tables"])
    for part, names in kept.items():
        _clear(out / part, names)
    _put(out / "summary.json", (json.dumps(summary_of(made), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())
    page = out / "report.html"
    _put(page, render(made, tables, figures, svgs).encode("utf-8", "replace"))
    return page


def pictures(made: Survey) -> list[Picture]:
    """Every figure that this study has."""
    found: list[Picture | None] = []
    for student in made.students:
        found += [reward_picture(made, student), perplexity_picture(made, student), forest(made, student)]
        found += benchmark_picture(made, student)
        found += [segment_picture(made, student), shift_picture(made, student)]
        found += heat_maps(made, student)
        found += curve_pictures(made, student)
        found.append(kept_picture(made, student))
    for one in made.frontiers:
        found += frontier_pictures(made, one)
    found += axis_pictures(made)
    found += judged_pictures(made)
    return _named_apart(picture for picture in found if picture is not None)


def all_tables(survey: Survey, *, published: bool) -> list[Table]:
    """Every table that has rows."""
    made = [
        arms_table(survey), contrasts_table(survey), benchmarks_table(survey), segments_table(survey), tokens_table(survey), shifts_table(survey),
        ties_table(survey), judged_table(survey), teachers_table(survey), training_table(survey), *[selection_table(survey, one) for one in survey.frontiers], axis_table(survey), losses_table(survey),
        costs_table(survey), origins_table(survey),
    ]  # fmt: skip
    if published:
        made[1:1] = [published_table(survey), published_grid(survey)]
    return [table for table in made if table.rows]


def _named_apart(found: Iterable[Picture]) -> list[Picture]:
    from dataclasses import replace

    seen: dict[str, int] = {}
    made = []
    for picture in found:
        count = seen[picture.name] = seen.get(picture.name, 0) + 1
        made.append(picture if count == 1 else replace(picture, name=f"{picture.name}_{count}"))
    return made


def _file_name(table: Table) -> str:

    return slug(table.name)


def _put(path: Path, content: bytes, names: set[str] | None = None) -> None:
    """Writes a file; `names` notes what was written."""
    write_bytes(path, content)
    if names is not None:
        names.add(path.name)


def _clear(folder: Path, names: set[str]) -> None:
    """Takes away figures and tables of an earlier build that this one does not have."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name not in names and path.suffix in (".svg", ".png", ".csv", ".md", ".tex"):
            path.unlink()
