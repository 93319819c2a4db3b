"""Answers: read out of responses and data sets (extraction, golds), and compared (verifier); docs/answers.md lists every rule."""

VERSION = 2
"""Rises when a verdict or an extracted answer changes: what verifies is redone, and nothing that samples."""
