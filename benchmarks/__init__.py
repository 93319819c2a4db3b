"""Measurements of qup against its peers: `python -m benchmarks.NAME` runs both in one go and fails where we fall short."""
