"""Choices by seed and name."""

import numpy as np
import pytest

from qup.draws import bits, choose, uniform


def test_a_draw_depends_on_seed_and_labels_alone():
    assert uniform(3, "p7", 2) == uniform(3, "p7", 2)
    assert len({bits(3, "p7"), bits(4, "p7"), bits(3, "p8"), bits(3, "p7", 0), bits(3, "p", "7"), bits(3, "p7", "0")}) == 6


def test_values_do_not_change_between_versions():
    """Published streams rest on these."""
    assert bits(0, "a", 1) == 16378868888835153980
    assert choose(1, "problem-17", 8) == 7


def test_draws_are_uniform():
    values = np.array([uniform(1, "p", index) for index in range(4000)])
    assert abs(values.mean() - 0.5) < 0.02
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.bincount([choose(5, f"p{index}", 7) for index in range(7000)], minlength=7)
    assert (abs(counts - 1000) < 150).all()


def test_a_choice_of_one_is_that_one_and_of_none_is_refused():
    assert choose(9, "p", 1) == 0
    with pytest.raises(ValueError, match="n=0"):
        choose(9, "p", 0)
