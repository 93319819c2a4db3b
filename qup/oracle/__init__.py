"""Everything that talks to the Oracle, or to the judge, which is one too."""

from qup.oracle.asks import Answer, Ask
from qup.oracle.checks import STATUSES, USABLE, check
from qup.oracle.client import LEDGER, OracleClient, open_oracle, stage_oracle
from qup.oracle.ledger import Spent, read_spent
from qup.oracle.retry import retrying

__all__ = [
    "LEDGER",
    "STATUSES",
    "USABLE",
    "Answer",
    "Ask",
    "OracleClient",
    "Spent",
    "check",
    "open_oracle",
    "read_spent",
    "retrying",
    "stage_oracle",
]
