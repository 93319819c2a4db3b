"""The lab's problems."""

from qup.config.schema import LabProblems
from qup.lab.world import generate, plentiful


def test_what_is_called_plentiful_can_be_drawn():
    least = LabProblems(n=5000, min_steps=1, max_steps=2, max_value=50, seed=2)
    assert plentiful(least)
    assert sum(1 for _ in generate(least)) == 5000
    assert not plentiful(LabProblems(n=10, min_steps=3, max_steps=2))
    assert not plentiful(LabProblems(n=10, min_steps=1, max_steps=1))
