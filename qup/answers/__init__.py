"""Answers: read out of responses and data sets, and compared.

`extract` and `gold` read, `Verifier` compares; docs/answers.md lists every rule.
"""

from qup.answers.extraction import extract
from qup.answers.golds import gold
from qup.answers.verifier import CORRECT, VERDICTS, Verifier

__all__ = ["CORRECT", "VERDICTS", "Verifier", "extract", "gold"]
