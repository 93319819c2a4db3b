"""The most that a stage may spend."""

from __future__ import annotations

from qup.config.schema import Oracle
from qup.errors import BudgetExceeded
from qup.oracle.ledger import Ledger

BATCH_DISCOUNT = 0.5


class Budget:
    """Prices of one Oracle, and a limit over every process that writes to the same ledger folder.

    A request whose fate is open, in flight or in doubt, is taken to cost what an answer cost on average so far; the
    limit is overrun by no more than the requests in flight, and by those only before the first answers came.
    """

    def __init__(self, oracle: Oracle, max_usd: float | None, ledger: Ledger) -> None:
        self._input, self._output = oracle.usd_per_million_input / 1e6, oracle.usd_per_million_output / 1e6
        self._max_usd, self._ledger = max_usd, ledger

    def price(self, input_tokens: int, output_tokens: int, discount: float = 1.0) -> float:
        return discount * (input_tokens * self._input + output_tokens * self._output)

    def left(self) -> float:
        """Dollars that may still be spent; infinite without a limit."""
        if self._max_usd is None or not (self._input or self._output):
            return float("inf")
        total = self._ledger.total()
        mean = total.usd / total.answered if total.answered else 0.0
        return self._max_usd - total.usd - max(total.in_doubt, 0) * mean

    def allows_another(self) -> bool:
        """Whether one more request fits."""
        left = self.left()
        if left == float("inf"):
            return True
        total = self._ledger.total()
        return left > 0 and left >= (total.usd / total.answered if total.answered else 0.0)

    def exceeded(self) -> BudgetExceeded:
        """What to raise where nothing more fits."""
        total = self._ledger.total()
        return BudgetExceeded(
            f"the Oracle's budget of this stage, {self._max_usd:g} dollars, is used up: {total.usd:.4f} dollars for {total.answered} answers, "
            f"{total.in_doubt} requests in doubt; raise study.max_oracle_usd and run again, what was answered is kept and not asked again"
        )
