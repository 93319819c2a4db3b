"""What was spent, over processes and kills."""

from __future__ import annotations

from pathlib import Path

from qup.config.schema import Oracle
from qup.oracle.budget import Budget
from qup.oracle.ledger import Ledger, read_spent

PRICED = Oracle(usd_per_million_input=1e6, usd_per_million_output=2e6)


def test_requests_without_a_fate_are_in_doubt(tmp_path: Path) -> None:
    killed = Ledger(tmp_path)
    for name in ("a", "b", "c", "d"):
        killed.note("s", name)
    killed.note("a", "a", 10, 5, 0.25)
    killed.note("r", "b", "429")
    killed.note("d", "c", "cut")
    spent = read_spent(tmp_path)
    assert (spent.requests, spent.answered, spent.in_doubt) == (4, 1, 2)
    assert (spent.input_tokens, spent.output_tokens, spent.usd) == (10, 5, 0.25)
    assert spent.as_dict()["status"] == {"429": 1, "cut": 1}


def test_the_total_covers_every_process_that_wrote(tmp_path: Path) -> None:
    first, second = Ledger(tmp_path), Ledger(tmp_path, clock=iter(range(100)).__next__)
    first.note("s", "a")
    first.note("a", "a", 1, 1, 1.0)
    assert second.total().usd == 1.0
    second.note("s", "b")
    second.note("t", "b")
    second.note("a", "b", 1, 1, 2.0)
    total = second.total()
    assert (total.usd, total.requests, total.retries, total.in_doubt) == (3.0, 3, 1, 1)
    first.note("s", "c")
    assert second.total().in_doubt == 2
    assert second.total().usd == 3.0, "other files are read on, not anew"


def test_a_torn_line_waits_for_its_end(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.note("s", "a")
    (file,) = tmp_path.glob("*.ledger")
    with file.open("a") as torn:
        torn.write("a a 1")
    assert read_spent(tmp_path).answered == 0
    assert read_spent(tmp_path / "nowhere").requests == 0


def test_nothing_is_written_without_a_folder() -> None:
    ledger = Ledger(None)
    ledger.note("s", "a")
    assert ledger.total().in_doubt == 1


def test_a_budget_counts_what_is_under_way_at_the_mean_price() -> None:
    ledger = Ledger(None)
    budget = Budget(PRICED, 10.0, ledger)
    assert budget.price(2, 3) == 8.0 and budget.price(2, 3, 0.5) == 4.0
    assert budget.allows_another()
    ledger.note("s", "a")
    ledger.note("a", "a", 2, 1, 4.0)
    assert budget.allows_another()
    ledger.note("s", "b")
    assert not budget.allows_another(), "4 spent and 4 under way leave less than another 4"
    ledger.note("r", "b", "429")
    assert budget.allows_another()
    assert "10 dollars" in str(budget.exceeded())


def test_a_budget_of_nothing_allows_nothing_that_has_a_price() -> None:
    assert not Budget(PRICED, 0.0, Ledger(None)).allows_another()
    assert Budget(Oracle(), 0.0, Ledger(None)).allows_another()
    assert Budget(PRICED, None, Ledger(None)).allows_another()
