"""Answers: read out of responses and data sets, and compared.

`extract` and `gold` read, `Verifier` compares; docs/answers.md lists every rule.
"""

from qup.answers.extraction import extract
from qup.answers.golds import gold
from qup.answers.verifier import CORRECT, VERDICTS, Verifier

__all__ = ["CORRECT", "VERDICTS", "VERSION", "Verifier", "extract", "gold"]

VERSION = 2
"""Rises when a verdict or an extracted answer changes: what verifies is redone, and nothing that samples."""
