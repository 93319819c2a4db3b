"""Whole training stages on a made-up stream, for timings of more than the steps."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from qup.config.schema import Model, Resources, Tracking, Trainer, Zero
from qup.config.views import TrainView
from qup.files import write_table
from qup.pipeline.context import Context
from qup.records import STREAM

TRAINER = Trainer(dtype="float32", lr=1e-3, batch_size=16, seed=0, max_length=256)


def student(folder: Path) -> Path:
    """A student of the lab's size with the lab's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from qup.lab.tokenizer import build

    tokenizer = build()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_stream(path: Path, n: int) -> Path:
    """n examples of about 100 tokens."""
    draw = random.Random(0)
    rows = []
    for i in range(n):
        steps = " ".join(f"{draw.randrange(50)} + {draw.randrange(10)} = {draw.randrange(50)} ." for _ in range(draw.randint(4, 16)))
        rows.append({"problem_id": f"p{i}", "question": f"{draw.randrange(50)} + {draw.randrange(50)} ?", "text": steps})
    write_table(path, pa.Table.from_pylist([{name: row.get(name) for name in STREAM.names} for row in rows], schema=STREAM))
    return path


def run_stage(folder: Path, n: int, trainer: dict[str, Any]) -> dict[str, Any]:
    """The training stage over n examples in this process; its metrics."""
    from qup.training.job import Job
    from qup.training.launch import train

    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    model = Model(path=str(student(folder / "student")), template="lab", device="cpu")
    view = TrainView(model, replace(TRAINER, **trainer), Zero(1), Tracking())
    stream = write_stream(folder / "stream.parquet", n)
    job = Job(view, stream, None, folder / "work", folder / "out", "key", "2G", {})
    return train(job, Context(folder / "out", folder / "work", folder, Resources()), {})
