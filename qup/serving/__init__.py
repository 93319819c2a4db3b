"""Servers of language models: those we start ourselves, and what every client of one needs."""
