"""How much each stage of a graph is expected to cover, before it has run."""

from __future__ import annotations

from collections.abc import Callable

from qup.config.once import Once
from qup.config.schema import Benchmark, Problems, Source
from qup.pipeline.graph import Graph
from qup.pipeline.kinds import KINDS
from qup.pipeline.nodes import Node, Ref

UPWARDS = ("aligned", "solvable", "problems")
"""The input that says which problems a stage covers: the first of these that it has."""


class GraphSizes:
    """Expected problems and rows of a graph's stages, each worked out once."""

    def __init__(
        self,
        graph: Graph,
        stored: Callable[[Ref], float | None],
        count: Callable[[Problems | Benchmark], int],
        given: Callable[[Source, Problems], float],
    ) -> None:
        """`stored(ref)`: problems that a stored result covers, None where there is none; `count(data)`: rows of a data set;
        `given(source, data)`: traces of a problem that files hold."""
        self._graph = graph
        self._stored = stored
        self._count = count
        self._given = given
        self._problems: dict[Ref, float] = {}
        self._once = Once()

    def node(self, ref: Ref) -> Node:
        return self._graph.nodes[ref]

    def problems(self, ref: Ref) -> float:
        """Expected problems that a stage covers; 0 for one that covers none."""
        if ref not in self._problems:
            node, covers = self.node(ref), KINDS[ref.kind].covers
            size = self._stored(ref) if KINDS[ref.kind].counted_by else None
            if size is None:
                upwards = next((node.inputs[name] for name in UPWARDS if name in node.inputs), None)
                size = covers(node, self) if covers else self.problems(upwards) if upwards else 0.0
            self._problems[ref] = float(size)
        return self._problems[ref]

    def rows(self, ref: Ref) -> float:
        """Expected rows of a stage's main table."""
        return float(KINDS[ref.kind].rows(self.node(ref), self))

    def count(self, data: Problems | Benchmark) -> int:
        """Rows of a data set."""
        return self._once(self._count, data)

    def given(self, source: Source, data: Problems) -> float:
        """Traces of a problem that files hold."""
        return self._once(self._given, source, data)
