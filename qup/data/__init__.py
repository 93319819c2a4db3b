"""Data from outside: problem sets and benchmarks, file formats, traces by problem id, overlap with benchmarks."""
