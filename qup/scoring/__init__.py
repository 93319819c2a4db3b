"""Scores of traces: reward models, and NLL with ranks under the student."""
