"""The pools that a cell's stream draws from, and who wrote each of them."""

from __future__ import annotations

from dataclasses import dataclass

from qup.config.schema import Config, Oracle

NO_ORACLE = Oracle()


@dataclass(frozen=True)
class Pool:
    """Candidates of one source. With several teachers each Oracle writes a pool of its own, `oracle.NAME`."""

    name: str
    source: str
    oracle: Oracle
    teacher: str
    """Who wrote all of it; "" where the traces themselves tell."""


def all_pools(cell: Config) -> list[Pool]:
    """Every pool of the cell's source, in its order."""
    made = []
    for source in cell.source.name.split("+"):
        if not asks_oracle(source, cell.refinement.name):
            made.append(Pool(source, source, NO_ORACLE, "" if source == "file" else source))
        elif cell.teacher:
            made += [Pool(f"{source}.{name}", source, oracle, oracle.name) for name, oracle in cell.teacher.items()]
        else:
            made.append(Pool(source, source, cell.oracle, cell.oracle.name))
    return made


def drawn_pools(cell: Config) -> list[Pool]:
    """Those that can hold a trace of `source.teacher`; all where none is named."""
    wanted = cell.source.teacher
    return [pool for pool in all_pools(cell) if not wanted or pool.teacher in ("", wanted)]


def asks_oracle(pool: str, refinement: str) -> bool:
    """Whether an arm needs the Oracle."""
    return pool == "oracle" or refinement != "none"
