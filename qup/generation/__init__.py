"""Drawing responses from a student: in this process, from a vLLM server we start, or from any endpoint."""

from qup.generation.backends import Backend, open_backend, sample
from qup.generation.records import Clamped, Request, Sample, clamp
from qup.generation.student import Student

__all__ = ["Backend", "Clamped", "Request", "Sample", "Student", "clamp", "open_backend", "sample"]
