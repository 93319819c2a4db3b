"""Drawing responses from a student: in this process, from a vLLM server we start, or from any endpoint."""

from qup.generation.records import Clamped, Request, Sample, clamp

__all__ = ["Clamped", "Request", "Sample", "clamp"]
