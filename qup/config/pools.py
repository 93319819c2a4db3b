"""The pools that a cell's stream draws from, and who wrote each of them."""

from __future__ import annotations

from dataclasses import dataclass

from qup.config.schema import Config, Oracle

NO_ORACLE = Oracle()
ORACLE = "oracle"
"""Who wrote the traces of a cell's only Oracle."""


@dataclass(frozen=True)
class Pool:
    """Candidates of one source. With several teachers each Oracle writes a pool of its own, `oracle.NAME`."""

    name: str
    source: str
    oracle: Oracle
    teacher: str
    """Who wrote all of it; "" where the traces themselves tell."""
    written: str
    """The same as its rows tell it: where no second Oracle is to be told apart, the name is no part of the data."""


def all_pools(cell: Config) -> list[Pool]:
    """Every pool of the cell's source, in its order."""
    made = []
    for source in cell.source.name.split("+"):
        if not asks_oracle(source, cell.refinement.name):
            teacher = "" if source == "file" else source
            made.append(Pool(source, source, NO_ORACLE, teacher, teacher))
        elif cell.teacher:
            made += [Pool(f"{source}.{name}", source, oracle, oracle.name, oracle.name) for name, oracle in cell.teacher.items()]
        else:
            made.append(Pool(source, source, cell.oracle, cell.oracle.name, ORACLE))
    return made


def drawn_pools(cell: Config) -> list[Pool]:
    """Those that can hold a trace of `source.teacher`; all where none is named."""
    wanted = cell.source.teacher
    return [pool for pool in all_pools(cell) if not wanted or pool.teacher in ("", wanted)]


def wanted_teacher(cell: Config) -> str:
    """`source.teacher` as the rows of pools tell it; "" where none is named."""
    wanted = cell.source.teacher
    return next((pool.written for pool in all_pools(cell) if wanted and pool.teacher == wanted), wanted)


def asks_oracle(pool: str, refinement: str) -> bool:
    """Whether an arm needs the Oracle."""
    return pool in ("oracle", "cooperative") or refinement != "none"


def needs_oracle(cell: Config) -> bool:
    """Whether a cell's stream asks the Oracle for anything."""
    return any(asks_oracle(pool, cell.refinement.name) for pool in cell.source.name.split("+"))
