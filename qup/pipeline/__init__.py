"""The order of stages: which kinds there are, and how cells become one graph of them."""

from qup.pipeline.build import build_graph
from qup.pipeline.graph import Graph, Node, Ref
from qup.pipeline.kinds import KINDS, Kind

__all__ = ["KINDS", "Graph", "Kind", "Node", "Ref", "build_graph"]
