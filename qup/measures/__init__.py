"""Measures of how well a trace, or a set of traces, suits a learner: statistics in, a number out. docs/measures.md explains each."""

from qup.measures.registry import KINDS, Kind, Settings, find

__all__ = ["KINDS", "Kind", "Settings", "find"]
