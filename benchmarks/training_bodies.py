"""What benchmarks/training.py measures, each in a process of its own: `python -m benchmarks.training_bodies WHAT '{…}'` prints one JSON line."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training_instruments import baseline, clock, examples_of, llama, model_of, peak_memory, resident, threads_of


def loss(spec: dict[str, Any]) -> dict[str, float]:
    """One forward and backward pass of the loss alone: T targets, H hidden, V words."""
    import torch

    from qup.training.losses import LossHead

    threads_of(spec)
    t, h, v, device = spec["t"], spec["h"], spec["v"], spec["device"]
    torch.manual_seed(0)
    dtype = getattr(torch, spec["dtype"])
    hidden = torch.randn(t, h, device=device, dtype=dtype).requires_grad_()
    linear = torch.nn.Linear(h, v, bias=False, device=device, dtype=dtype)
    target = torch.randint(0, v, (t,), device=device)

    def plain() -> Any:
        logp = linear(hidden).float().log_softmax(-1).gather(1, target[:, None]).squeeze(1)
        return (-logp if spec["objective"] == "sft" else -logp.exp().detach() * logp).sum()

    head = LossHead(linear, spec["objective"])
    if spec["way"] == "products":
        return {"seconds": _products(spec, hidden.detach(), linear.weight.detach())}
    body: Callable[[], Any] = plain if spec["way"] == "plain" else lambda: head(hidden, target).loss
    before = torch.cuda.memory_allocated() if device == "cuda" else resident()
    memory: dict[str, int] = {}
    seconds = []
    with peak_memory(memory, device):
        for _ in range(spec["repeats"]):
            hidden.grad = linear.weight.grad = None
            began = clock(spec)
            body().backward()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(clock(spec) - began)
    return {"seconds": min(seconds), "bytes": memory["peak"] - before}


def _products(spec: dict[str, Any], hidden_TH: Any, weight_VH: Any) -> float:
    """Seconds of the three matrix products alone, in chunks: no way that forms exact gradients takes less."""
    import torch

    from qup.training.losses import chunk_rows

    rows = chunk_rows(len(weight_VH), spec["device"])
    logits = torch.zeros(rows, len(weight_VH), device=spec["device"], dtype=hidden_TH.dtype)
    d_hidden, d_weight = torch.empty_like(hidden_TH), torch.zeros_like(weight_VH)
    seconds = []
    for _ in range(spec["repeats"]):
        began = clock(spec)
        for start in range(0, len(hidden_TH), rows):
            chunk = hidden_TH[start : start + rows]
            into = logits[: len(chunk)]
            torch.mm(chunk, weight_VH.T, out=into)
            torch.mm(into, weight_VH, out=d_hidden[start : start + rows])
            d_weight.addmm_(into.T, chunk)
        if spec["device"] == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock(spec) - began)
    return min(seconds)


def ours(spec: dict[str, Any]) -> dict[str, float]:
    """Optimizer steps of the engine over packed batches. "Bytes" leave out gradients, moments and, in bfloat16, master weights."""
    import torch

    from qup.config.schema import Trainer, Zero
    from qup.training import sizes
    from qup.training.attention import FLAT, use_attention
    from qup.training.batches import Layouter, lay_out, tensors_of
    from qup.training.engine import Engine
    from qup.training.ranks import World, process_group, quiet_deepspeed
    from qup.training.rehearsal import rows_that_fit
    from qup.training.student import prepare

    threads_of(spec)
    quiet_deepspeed()
    device = spec["device"]
    cuda = device == "cuda"
    trainer = Trainer(
        objective=spec["objective"],
        dtype=spec["dtype"],
        lr=1e-5,
        activation_checkpointing=spec.get("checkpointing", False),
        attention=spec.get("attention", "auto"),
    )
    zero = Zero(spec["zero"])
    model = model_of(spec)
    examples = examples_of(spec["lengths"], spec["shape"]["vocabulary"])
    batches = [examples[start : start + spec["batch"]] for start in range(0, len(examples), spec["batch"])]
    world = World(device="cuda:0" if cuda else "cpu")
    with process_group(world):
        before, weights = baseline(model, device)
        memory: dict[str, int] = {}
        with peak_memory(memory, device):
            attention = use_attention(model, trainer, cuda)
            flat = attention in FLAT
            trained = prepare(model, trainer, zero)
            body = weights - model.get_output_embeddings().weight.numel()
            engine = Engine(trained, trainer, zero, world)
            row = sizes.longest_row(trainer, examples, cuda)
            vocabulary = spec["shape"]["vocabulary"]
            rows = rows_that_fit(engine, row, vocabulary, 0, packing=True, flat=flat, most=int) if cuda else spec["rows"]
            how = Layouter(1, rows, True, row, cost=sizes.row_cost(model.config, body, flat))
            seconds, tokens = [], 0
            for batch in batches:
                began = clock(spec)
                step = lay_out(batch, how)
                engine.step(step, [one.n_targets for one in batch], tensors_of(batch, step, 0, 0, flat), 1e-5)
                if cuda:
                    torch.cuda.synchronize()
                seconds.append(clock(spec) - began)
    counted = batches[spec["warm"] :]
    tokens = sum(one.length for batch in counted for one in batch)
    return {
        "tokens_per_s": tokens / sum(seconds[spec["warm"] :]),
        "bytes": memory["peak"] - before - weights * (12 if spec["dtype"] == "float32" else 2 + 4 + 8),
        "flops": flops_of(spec, counted, weights),
        "seconds": sum(seconds[spec["warm"] :]),
        "attention": attention,
        "rows": rows,
    }


def flops_of(spec: dict[str, Any], batches: Sequence[Sequence[Any]], parameters: int) -> float:
    from qup.training.metrics import model_flops

    shape = spec["shape"]
    head = shape["vocabulary"] * shape["hidden"]
    body = parameters - head * (1 if shape.get("tied") else 2)
    examples = [one for batch in batches for one in batch]
    return model_flops(
        body, head, shape["layers"], shape["hidden"], [one.length for one in examples], sum(one.n_targets for one in examples)
    )


def trl(spec: dict[str, Any]) -> dict[str, float]:
    """Optimizer steps of TRL's SFTTrainer on the same examples, by its own default collation or packed.

    "Bytes" leave out gradients and moments, which it keeps in the weights' type.
    """
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    threads_of(spec)
    device = spec["device"]
    model = model_of(spec)
    examples = examples_of(spec["lengths"], spec["shape"]["vocabulary"])
    columns = {
        "input_ids": [one.ids.tolist() for one in examples],
        "completion_mask": [[0] * one.n_prompt + [1] * one.n_targets for one in examples],
    }
    tokenizer = _word_tokenizer()
    before, weights = baseline(model, device)
    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            seconds.append(-clock(spec))

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[-1] += clock(spec)

    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            loss_type="nll" if spec["objective"] == "sft" else "dft",
            # told so because the examples come as token ids: left to itself it would learn the prompts as well
            completion_only_loss=True,
            packing=spec["packing"] is not None,
            packing_strategy=spec["packing"] or "bfd",
            max_length=spec["max_length"],
            per_device_train_batch_size=spec["rows"],
            gradient_accumulation_steps=spec["accumulation"],
            max_steps=spec["steps"],
            learning_rate=1e-5,
            use_cpu=device == "cpu",
            bf16=spec["dtype"] == "bfloat16",
            gradient_checkpointing=spec.get("checkpointing", False),
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            shuffle_dataset=False,
            dataloader_pin_memory=device == "cuda",
        )
        trainer = SFTTrainer(
            model=model, args=config, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer, callbacks=[Clock()]
        )
        counts: list[int] = []
        whole = trainer.get_batch_samples

        def count(*args: Any, **kwargs: Any) -> Any:
            batches, items = whole(*args, **kwargs)
            counts.append(sum(_real_tokens(batch) for batch in batches))
            return batches, items

        trainer.get_batch_samples = count
        memory: dict[str, int] = {}
        with peak_memory(memory, device):
            trainer.train()
    warm = spec["warm"]
    return {
        "tokens_per_s": sum(counts[warm : len(seconds)]) / sum(seconds[warm:]),
        "bytes": memory["peak"] - before - weights * (12 if spec["dtype"] == "float32" else 2 + 4),
        "seconds": sum(seconds[warm:]),
    }


def _real_tokens(batch: dict[str, Any]) -> int:
    """Tokens that are no padding (id 0 stands for nothing else here)."""
    return int((batch["input_ids"] != 0).sum())


def _word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def overhead(spec: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of a step at 8 × 64 tokens of the lab student's size, by a bare loop and by the engine, turn about."""
    import torch

    from qup.config.schema import Trainer, Zero
    from qup.training.batches import Layouter, lay_out, tensors_of
    from qup.training.engine import Engine
    from qup.training.ranks import World, process_group, quiet_deepspeed
    from qup.training.student import prepare

    threads_of(spec)
    quiet_deepspeed()
    shape = {"hidden": 64, "layers": 4, "vocabulary": 363}
    examples = examples_of([(24, 40)] * 8, 363)
    trainer = Trainer(dtype="float32", lr=1e-4)
    found: dict[str, list[float]] = {}
    bare = llama(**shape)
    optimizer = torch.optim.AdamW(bare.parameters(), lr=1e-4, fused=True)
    ids = torch.tensor(np.stack([one.ids for one in examples])).long()
    labels = ids.clone()
    labels[:, :24] = -100

    def bare_step() -> None:
        bare(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(bare.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    with process_group(World()):
        engines = {}
        for stage in (0, 1, 2, 3):
            engines[stage] = Engine(prepare(llama(**shape), trainer, Zero(stage)), trainer, Zero(stage), World())
        how = Layouter(1, 8, packing=False, longest_row=64)

        def engine_step(stage: int) -> None:
            step = lay_out(examples, how)
            engines[stage].step(step, [one.n_targets for one in examples], tensors_of(examples, step, 0, 0), 1e-4)

        ways: dict[str, Callable[[], None]] = {"bare": bare_step, **{f"stage{stage}": partial(engine_step, stage) for stage in engines}}
        for turn in range(spec["repeats"]):
            for name, way in ways.items():
                began = time.process_time()
                way()
                if turn >= 5:
                    found.setdefault(name, []).append(1000 * (time.process_time() - began))
    return {name: float(np.median(values)) for name, values in found.items()}


def flat(spec: dict[str, Any]) -> dict[str, float]:
    """CPU microseconds a token of whole training runs over n examples, from reading the stream to the written model."""
    from benchmarks.training_runs import run_stage

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        run_stage(Path(folder) / "warm", 200, {})
        for n in spec["sizes"]:
            began = time.process_time()
            metrics = run_stage(Path(folder) / str(n), n, {})
            found[str(n)] = 1e6 * (time.process_time() - began) / metrics["train_tokens"]
    return found


def cold(spec: dict[str, Any]) -> dict[str, float]:
    """Seconds from a new interpreter to a tiny run's end; the parent holds the watch."""
    from benchmarks.training_runs import run_stage

    run_stage(Path(spec["folder"]), 16, {"max_steps": 1})
    return {}


def warm(spec: dict[str, Any]) -> dict[str, float]:
    """Seconds of a tiny run in a child forked from a process that has imported everything."""
    import os

    from benchmarks.training_runs import run_stage
    from tests.helpers.warm import warm_up

    warm_up()
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            run_stage(Path(spec["folder"]), 16, {"max_steps": 1})
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"seconds": time.perf_counter() - began, "status": status}


WHAT: dict[str, Callable[[dict[str, Any]], dict[str, float]]] = {
    "loss": loss,
    "ours": ours,
    "trl": trl,
    "overhead": overhead,
    "flat": flat,
    "cold": cold,
    "warm": warm,
}


if __name__ == "__main__":
    print(json.dumps(WHAT[sys.argv[1]](json.loads(sys.argv[2]))))
