"""Numbers with the unit that shows them."""

import pytest

from qup.launch.units import short, size


@pytest.mark.parametrize(
    ("hours", "said"),
    [(0, "0 h"), (0.0001 / 3600, "<1 s"), (0.004, "14 s"), (0.5, "30.0 min"), (1.25, "1.2 h"), (12345.6, "12,345.6 h")],
)
def test_no_amount_of_time_is_shown_as_nothing(hours: float, said: str) -> None:
    assert " ".join(short(hours)) == said


def test_sizes() -> None:
    assert [size(of) for of in (300, 2e6, 17.25e9, 3.2e12)] == ["0 kB", "2.0 MB", "17.2 GB", "3.2 TB"]
