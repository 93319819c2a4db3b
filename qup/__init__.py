"""qup: find out which data recipe teaches a small language model best."""

__version__ = "0.1.0"
