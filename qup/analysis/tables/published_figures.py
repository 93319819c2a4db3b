"""Figures that the paper reports, to stand beside ours and never to be mixed with them.

Source: arXiv 2606.16152 (ICML 2026) as its abstract and published summaries give them; Qwen2.5-Math-1.5B, Avg@16 over
five benchmarks, reward by Qwen2.5-Math-RM-72B.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "as published (arXiv 2606.16152), Qwen2.5-Math-1.5B, Avg@16 over five benchmarks"


@dataclass(frozen=True)
class Published:
    """One row of the paper's tables; None where it gives no figure."""

    stream: str
    label: str
    reward: float | None
    sft: float | None
    dft: float | None
    ppl: float | None
    retention: float | None
    oracle: str = ""
    """What the Oracle's name has in it, where two rows are one stream by two Oracles."""


STUDENT, LR, BATCH = "qwen2_5_math_1_5b", 5e-5, 256
"""Whose figures they are, and what the tables' rows were trained with."""
ROWS = (
    Published("oracle_synthesized", "Oracle-Synthesized", 1.88, 23.26, 30.02, 2.69, 3.91),
    Published("numina_subset", "NuminaMath Subset", 1.78, 16.72, 31.28, None, None),
    Published("oracle_refined", "Oracle-Refined", 1.70, 19.60, 34.06, 1.85, 4.26),
    Published("slm_rft", "SLM-RFT", 1.47, 22.74, 37.06, 1.52, None),
    Published("style_aligned", "Style-Aligned (Qwen)", 1.37, None, 39.12, 1.46, 4.77, "qwen"),
    Published("style_aligned", "Style-Aligned (GPT-5.2)", 1.81, None, 38.21, 1.78, 4.07, "gpt"),
)
GRID = (("slm_rft", 5e-5, 128, 39.36), ("oracle_refined", 5e-5, 128, 33.96), ("oracle_synthesized", 5e-5, 128, 30.32))
"""(stream, lr, batch, DFT total) of the paper's grid, as far as known."""


def is_paper(name: str) -> bool:
    """Whether a study is one of the paper's experiments, by its name (`paper/…`, or `paper_…` as a folder)."""
    return name.startswith(("paper/", "paper_", "paper-"))
