"""A trained model as a plain Hugging Face directory."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from qup.config.schema import Lora
from qup.training.engine import Engine
from qup.training.student import Trained

PREFIX = "causal."


def whole_weights(engine: Engine, lora: Lora | None) -> dict[str, Tensor] | None:
    """The model's weights under their own names, adapters merged in; on rank 0, None elsewhere. All ranks call it."""
    if engine.zero.stage == 3:
        weights = engine.deepspeed._zero3_consolidated_16bit_state_dict()
    else:
        weights = engine.model.state_dict() if engine.world.first else None
    if not engine.world.first:
        return None
    weights = {name.removeprefix(PREFIX): tensor.detach().cpu() for name, tensor in weights.items()}
    if lora is not None:
        weights = merge_adapters(weights, lora.alpha / lora.rank)
    return weights


def merge_adapters(weights: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Weights with W + scale · B A in place of each adapted W (LoRA, arXiv 2106.09685), summed in float32."""
    merged = {name: tensor for name, tensor in weights.items() if ".lora_" not in name and ".base_layer." not in name}
    for name, base in weights.items():
        if ".base_layer." not in name:
            continue
        stem, _, leaf = name.partition(".base_layer.")
        if leaf == "weight":
            a, b = weights[f"{stem}.lora_A.default.weight"], weights[f"{stem}.lora_B.default.weight"]
            base = (base.float() + scale * (b.float() @ a.float())).to(base.dtype)
        merged[f"{stem}.{leaf}"] = base
    return merged


def write_model(trained: Trained, weights: dict[str, Tensor], tokenizer: Any, stops: Sequence[int], card: str, target: Path) -> None:
    """Writes safetensors, configuration, generation configuration, tokenizer, chat template and README.md; the directory appears whole.

    A tied output layer is left out, as `from_pretrained` expects. `stops` become the ids that end generation.
    """
    causal = trained.causal
    if getattr(causal.config, "tie_word_embeddings", False):
        weights = {name: tensor for name, tensor in weights.items() if name != "lm_head.weight"}
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    kept = causal.generation_config
    causal.generation_config = _generation_config(kept, tokenizer, stops)
    try:
        causal.save_pretrained(beside, state_dict=weights)  # type: ignore[operator]
    finally:
        causal.generation_config = kept
    tokenizer.save_pretrained(beside)
    (beside / "README.md").write_text(card, encoding="utf-8")
    for path in beside.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(beside, target)


def _generation_config(found: Any, tokenizer: Any, stops: Sequence[int]) -> Any:
    from transformers import GenerationConfig

    made = copy.deepcopy(found) if found is not None else GenerationConfig()
    made.eos_token_id = [int(stop) for stop in stops]
    if made.pad_token_id is None:
        made.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else int(stops[0])
    try:
        made.validate(strict=True)
    except ValueError:
        made = GenerationConfig(eos_token_id=made.eos_token_id, pad_token_id=made.pad_token_id, bos_token_id=made.bos_token_id)
    return made


def card(facts: Mapping[str, Any]) -> str:
    """README.md of the model directory: where it comes from and how it was made. `facts` are grouped: heading → name → value."""
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "---", "", f"# {facts['title']}", ""]
    lines += [
        "A student fine-tuned by qup. Weights, tokenizer, chat template and stop ids belong together; so do the prompt and the answers.",
        "",
    ]
    for heading, rows in facts.items():
        if heading == "title":
            continue
        lines += [f"## {heading}", "", "| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows.items()), ""]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
