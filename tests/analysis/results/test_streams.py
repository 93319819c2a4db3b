"""Figures of streams by problem."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from qup.analysis.results.streams import StreamScores, by_problem, same_problems


def test_several_traces_of_a_problem_are_one_entry() -> None:
    ids = pa.chunked_array([["a", "a"], ["a", "b", "c", "c"]])
    scores = StreamScores("k", ids, {"r": np.array([1.0, 2.0, 6.0, 4.0, 1.0, np.nan])}, np.arange(6.0), np.ones(6))
    found = by_problem(scores)
    assert found.problem_ids is not None and found.problem_ids.to_pylist() == ["a", "b", "c"]
    np.testing.assert_array_equal(found.reward_P["r"], [3.0, 4.0, np.nan])
    np.testing.assert_array_equal(found.nll_P, [3.0, 3.0, 9.0])
    np.testing.assert_array_equal(found.tokens_P, [3.0, 1.0, 2.0])
    one = StreamScores("l", pa.chunked_array([["a", "b", "c"]]))
    assert same_problems(found, one) == ""
