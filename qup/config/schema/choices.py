"""Names that a setting may take, where several modules need the list."""

from __future__ import annotations

from qup.measures import KINDS
from qup.measures.registry import STEPS as STEPS

EXTRACTIONS = ("dft", "boxed", "last_number", "gsm8k", "lab")
GOLDS = ("plain", "boxed", "gsm8k", "float", "first", "lab")
TEMPLATES = (
    "tokenizer",
    "qwen_boxed",
    "qwen25_math_cot",
    "llama_base_boxed",
    "deepseek_math",
    "plain_boxed",
    "final_answer",
    "lab",
    "lab_sequential",
    "lab_symbolic",
)
UNPOOLED = ("nemotron",)
"""Input formats of reward models whose score no pooling server gives."""
BACKENDS = ("transformers", "vllm", "openai", "auto")
STREAMS = {
    "slm_rft": ("student", "none"),
    "oracle_refined": ("student", "refine"),
    "oracle_synthesized": ("oracle", "none"),
    "style_aligned": ("student", "style_aligned"),
    "numina_subset": ("dataset", "none"),
    "cooperative": ("cooperative", "none"),
}
POOLS = ("student", "oracle", "cooperative", "dataset", "file")
REFINEMENTS = ("none", "refine", "style_aligned")
SELECTIONS = ("random", "shortest", "reward", "perplexity", "rank_surprisal", "measure", "joint", "pareto")
MEASURES = tuple(KINDS)
