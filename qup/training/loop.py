"""One rank's training run, from the stream to the Hugging Face directory. Every rank runs it, in step."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import distributed

from qup.errors import InputError, Interrupted, QupError
from qup.models import encode_prompt, encode_response, load_model, load_tokenizer, stop_ids, train_stop_id
from qup.training import export, sizes
from qup.training.attention import FLAT, use_attention
from qup.training.batches import Layouter, Step, lay_out, tensors_of
from qup.training.checkpoint import Checkpoint, Checkpoints, State, check_stage, to_universal
from qup.training.engine import Engine, StepResult, deepspeed_config
from qup.training.examples import Example, Examples, batches_of, encode_stream
from qup.training.job import Job
from qup.training.metrics import StepLog, attention_width, model_flops, peak_flops, peak_memory, read_steps, summarise, timings
from qup.training.optimizer import lr_factor, warmup_steps
from qup.training.ranks import Meeting, Watch, World, process_group, quietly
from qup.training.rehearsal import rows_that_fit
from qup.training.student import Trained, partitioned_loading, prepare, probe

MAX_SKIPPED = 3
"""Optimizer steps in a row without a finite gradient that end the run."""


@dataclass(frozen=True)
class Ways:
    """How a rank talks to whoever started it."""

    log: logging.Logger
    stopping: Callable[[], bool]
    progress: Callable[[float, float, str], None]
    """progress(done, total, "steps")."""
    finished: Callable[[dict[str, Any]], None] = lambda metrics: None
    """Told the metrics once all is written and every rank has come so far, before anything is taken down."""
    on_silence: Callable[[int], None] = lambda rank: None
    """Told of a rank that no longer answers; must end this process."""
    meeting: Meeting | None = None


@dataclass
class Progress:
    """Where a run stands; changes with every step."""

    step: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    saved: int = 0
    saved_at: float = 0.0


class Run:
    """A training run of one rank."""

    def __init__(self, job: Job, world: World, ways: Ways) -> None:
        self.job, self.world, self.ways, self.log = job, world, ways, ways.log
        self.trainer, self.zero = job.view.trainer, job.view.zero
        self.cuda = world.device.startswith("cuda")
        self.checkpoints = Checkpoints(job.work / "checkpoints", job.key, ways.log)
        self.at = Progress()
        self.model = replace(job.view.model, dtype=self.trainer.dtype)

    def run(self) -> dict[str, Any]:
        """Trains, exports, and returns the metrics (on every rank). Raises Interrupted once a checkpoint holds what was done."""
        began = time.time()
        torch.set_num_threads(self.model.threads)
        self.tokenizer = load_tokenizer(self.model, self.job.student)
        self.examples = self._encode()
        trainer = self.trainer
        self.batches = batches_of(
            self.examples, trainer.batch_size, trainer.epochs, trainer.seed or 0, trainer.drop_last, trainer.max_steps
        )
        with ExitStack() as held:
            if self.world.first:
                held.enter_context(self.checkpoints.hold())
            held.enter_context(process_group(self.world, self.ways.meeting))
            watch = held.enter_context(Watch(self.world, self.trainer.timeout_s, self.ways.on_silence))
            found = self._choose()
            self._build(found)
            held.callback(quietly, "the engine", self.engine.close)
            self._resume(found)
            self.steps = StepLog(self.job.work / "steps.jsonl", self.at.step) if self.world.first else None
            try:
                self._train()
            finally:
                if self.steps is not None:
                    self.steps.close()
            self._export(self.job.out / "model", 1.0)
            self._gather_kept()
            watch.stop()
            self.engine.barrier()
            metrics = self._metrics(read_steps(self.job.work / "steps.jsonl"), time.time() - began)
            self.ways.finished(metrics)
        return metrics

    def _encode(self) -> Examples:
        template = self.trainer.template or self.model.template
        stop = self._stop_id(template)
        return encode_stream(
            pq.read_table(self.job.stream),
            lambda question: encode_prompt(self.tokenizer, template, question),
            lambda text: encode_response(self.tokenizer, text, stop),
            self.trainer.max_length,
            self.trainer.max_dropped,
        )

    def _stop_id(self, template: str) -> int:
        if self.trainer.ending == "turn":
            return train_stop_id(self.tokenizer, template)
        if self.tokenizer.eos_token_id is None:
            raise InputError(f"trainer.ending=eos: the tokenizer of {self.model.name} names no EOS; turn is valid")
        return int(self.tokenizer.eos_token_id)

    def _choose(self) -> Checkpoint | None:
        """The checkpoint to go on from, the same on every rank; damaged ones are set aside."""
        while True:
            found: list[Any] = [None, None]
            if self.world.first:
                try:
                    found[0] = self.checkpoints.newest_sound()
                    if found[0] is not None:
                        check_stage(found[0], self.zero.stage)
                except QupError as error:
                    found[1] = error
            if self.world.size > 1:
                distributed.broadcast_object_list(found, src=0)
            if found[1] is not None:
                raise found[1]
            checkpoint: Checkpoint | None = found[0]
            if checkpoint is None:
                return None
            bad = checkpoint.unreadable(self.world.rank, self.world.size)
            if not self._anywhere(bool(bad)):
                return checkpoint
            if self.world.first:
                self.checkpoints.set_aside(checkpoint, f"{', '.join(bad) or 'a shard'} fails its checksum")

    def _most(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        if self.world.size == 1:
            return number
        largest = torch.tensor(number, device=self.world.device)
        distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
        return int(largest.item())

    def _anywhere(self, flag: bool) -> bool:
        return bool(self._most(int(flag)))

    def _build(self, found: Checkpoint | None) -> None:
        universal = found is not None and found.state.world_size != self.world.size and self.zero.stage > 0
        config = deepspeed_config(self.trainer, self.zero, self.cuda, universal)
        with partitioned_loading(config if self.zero.stage == 3 else None):
            causal = load_model(self.model, self.job.student, device=None)
            self.attention = use_attention(causal, self.trainer, self.cuda)
            trained = prepare(causal, self.trainer, self.zero)
        self.config = causal.config
        self.flat = self.attention in FLAT
        numel = {name: math.prod(getattr(p, "ds_shape", p.shape)) for name, p in trained.named_parameters()}
        self.parameters = sum(numel.values())
        head = trained.causal.get_output_embeddings().weight  # type: ignore[operator]
        self.head_parameters = math.prod(getattr(head, "ds_shape", head.shape))
        table = trained.causal.get_input_embeddings().weight  # type: ignore[operator]
        self.table_parameters = 0 if table is head else math.prod(getattr(table, "ds_shape", table.shape))
        self.engine = Engine(trained, self.trainer, self.zero, self.world, universal)
        probe(self.trained, self.engine.device, self.trainer.packing)
        self.layouter = self._layouter(found)

    @property
    def trained(self) -> Trained:
        return self.engine.model  # type: ignore[return-value]

    def _layouter(self, found: Checkpoint | None) -> Layouter:
        trainer = self.trainer
        row = sizes.longest_row(trainer, self.examples.kept, self.cuda)
        body = max(1, self.parameters - self.head_parameters)
        how = Layouter(
            world_size=self.world.size,
            micro_batch=1,
            packing=trainer.packing,
            longest_row=row,
            fixed=trainer.row_tokens is not None,
            cost=sizes.row_cost(self.config, body, self.flat),
            in_order=trainer.normalisation != "global",
        )
        if isinstance(trainer.micro_batch, int):
            rows = trainer.micro_batch
        elif found is not None and found.state.world_size == self.world.size:
            rows = found.state.micro_batch
        elif self.cuda:
            vocabulary = self.head_parameters // self.config.get_text_config().hidden_size
            rows = rows_that_fit(self.engine, row, vocabulary, self._fill, packing=trainer.packing, flat=self.flat, most=self._most)
        else:
            rows = sizes.cpu_rows(
                self.config, self.parameters, row, 4 if trainer.dtype == "float32" else 2, sizes.memory_bytes(self.job.memory)
            )
        return replace(how, micro_batch=rows)

    def _resume(self, found: Checkpoint | None) -> None:
        self.at.saved_at = time.monotonic()
        if found is None:
            return
        tag, universal = found.path.name, None
        if self.engine.universal:
            if self.world.first:
                universal = to_universal(found, 2)
            self.engine.barrier()
            tag = f"universal-{tag}"
        self.engine.load(self.checkpoints.root, tag)
        self.engine.barrier()
        if universal is not None:
            shutil.rmtree(universal, ignore_errors=True)
        state = found.state
        self.at = Progress(state.step, state.skipped, state.skipped_in_row, state.step, time.monotonic())
        self.log.info("going on from the checkpoint of step %d of %d", state.step, len(self.batches))

    @property
    def _fill(self) -> int:
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0

    def _train(self) -> None:
        total = len(self.batches)
        warmup = warmup_steps(total, self.trainer.warmup_ratio)
        keep: dict[int, list[float]] = {}
        for share in self.trainer.evaluate_at:
            if share < 1:
                keep.setdefault(max(1, math.ceil(share * total)), []).append(share)
        peak = peak_flops(self.world.device)
        if self._anywhere(self.ways.stopping()):
            raise Interrupted(f"asked to stop before step {self.at.step + 1} of {total}")
        while self.at.step < total:
            began = time.perf_counter()
            number = self.at.step
            batch = self.batches[number]
            step = lay_out(batch, self.layouter)
            lr = self.trainer.lr * lr_factor(number, total, self.trainer.schedule, warmup)
            torch.manual_seed(_draw_seed(self.trainer.seed or 0, number, self.world.rank))
            tensors = tensors_of(batch, step, self.world.rank, self._fill, self.flat)
            result = self.engine.step(step, [example.mass for example in batch], tensors, lr, self._flags)
            self.at.step += 1
            if self.steps is not None:
                self.steps.append(self._entry(batch, step, result, lr, time.perf_counter() - began, peak))
            self._count(result, batch)
            self.ways.progress(self.at.step, total, "steps")
            for share in keep.get(self.at.step, ()):
                self._export(self.job.work / "kept" / f"model-{share:g}", share)
            stop = result.stop or (self.world.size == 1 and self.ways.stopping())
            if stop or result.due or self._by_count():
                self._save()
            if stop and self.at.step < total:
                raise Interrupted(f"asked to stop after step {self.at.step} of {total}; its checkpoint is kept")

    def _flags(self) -> tuple[bool, bool]:
        due = self.world.first and time.monotonic() - self.at.saved_at > 60 * self.trainer.checkpoint_minutes
        return self.ways.stopping(), due

    def _by_count(self) -> bool:
        every = self.trainer.checkpoint_steps
        return every is not None and self.at.step % every == 0

    def _count(self, result: StepResult, batch: list[Example]) -> None:
        if not result.skipped:
            self.at.skipped_in_row = 0
            return
        self.at.skipped += 1
        self.at.skipped_in_row += 1
        self.log.warning("step %d skipped: its gradient is not finite (problems %s)", self.at.step, _names(batch))
        if self.at.skipped_in_row == MAX_SKIPPED:
            raise InputError(
                f"steps {self.at.step - MAX_SKIPPED + 1} to {self.at.step}: {MAX_SKIPPED} optimizer steps in a row without a finite gradient; "
                f"problems of the last: {_names(batch)}. Weights or data are broken, or trainer.lr={self.trainer.lr:g} is too high"
            )

    def _entry(self, batch: list[Example], step: Step, result: StepResult, lr: float, seconds: float, peak: float | None) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "step": self.at.step,
            "loss": result.loss,
            "nll": result.nll,
            "p": result.p,
            "grad_norm": result.grad_norm,
            "lr": lr,
            "examples": len(batch),
            "tokens": step.n_tokens,
            "targets": step.n_targets,
            "computed": step.n_computed,
            "rows": step.n_rows,
            "skipped": result.skipped,
            "seconds": seconds,
            "tokens_per_s": step.n_tokens / seconds,
            "memory": peak_memory(self.world.device),
            "mfu": None,
        }
        if peak is not None:
            text = self.config.get_text_config()
            body = self.parameters - self.head_parameters - self.table_parameters
            lengths = [example.length for example in batch]
            width, frozen = attention_width(text), self.trainer.lora is not None
            flops = model_flops(body, self.head_parameters, text.num_hidden_layers, width, lengths, step.n_targets, frozen)
            entry["mfu"] = flops / (seconds * peak * self.world.size)
        return entry

    def _save(self) -> None:
        """Writes a checkpoint of the steps done, unless the last one is of this very step."""
        if self.at.saved == self.at.step:
            return
        state = State(
            self.at.step, self.job.key, self.world.size, self.zero.stage, self.layouter.micro_batch, self.at.skipped, self.at.skipped_in_row
        )
        path = self.checkpoints.path(self.at.step)
        try:
            if self.world.first:
                shutil.rmtree(path, ignore_errors=True)
            self.engine.save(self.checkpoints.root, path.name)
            if self.world.first:
                self.checkpoints.publish(state)
        except (OSError, RuntimeError) as error:
            raise self.checkpoints.unwritable(self.at.step, error) from error
        self.engine.barrier()
        self.at.saved, self.at.saved_at = self.at.step, time.monotonic()

    def _export(self, target: Path, share: float) -> None:
        weights = export.whole_weights(self.engine, self.trainer.lora)
        if weights is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            stops = stop_ids(self.tokenizer, self.model, self.config, self.trained.causal.generation_config)
            first = self._stop_id(self.trainer.template or self.model.template)
            ordered = [first, *(stop for stop in stops if stop != first)]
            export.write_model(self.trained, weights, self.tokenizer, ordered, self._card(share), target)
        self.engine.barrier()

    def _gather_kept(self) -> None:
        if self.world.first:
            for path in sorted((self.job.work / "kept").glob("model-*")):
                shutil.copytree(path, self.job.out / path.name, dirs_exist_ok=True)
            shutil.copyfile(self.job.work / "steps.jsonl", self.job.out / "steps.jsonl")

    def _card(self, share: float) -> str:
        view, trainer = self.job.view, self.trainer
        recipe = {
            "objective": trainer.objective,
            "examples": len(self.examples.kept),
            "steps": f"{self.at.step} of {len(self.batches)}",
            "share of the run": share,
            "batch": trainer.batch_size,
            "learning rate": trainer.lr,
            "schedule": f"{trainer.schedule}, warm-up {trainer.warmup_ratio:g}",
            "AdamW": f"betas {tuple(trainer.betas)}, weight decay {trainer.weight_decay:g}, clip {trainer.clip:g}",
            "normalisation": trainer.normalisation,
            "max length": f"{trainer.max_length} tokens, {self.examples.n_truncated} examples cut",
            "dtype": f"{trainer.dtype}, master weights and moments {trainer.master}",
            "prompt": f"{trainer.template or view.model.template}, ending {trainer.ending}",
            "seed": trainer.seed,
            "adapters": f"LoRA rank {trainer.lora.rank}, merged" if trainer.lora else "none",
            "ranks": f"{self.world.size}, ZeRO {self.zero.stage}",
        }
        names = {name: value for name, value in view.labels.items() if value}
        title = view.labels.get("cell") or f"{view.model.name}, {trainer.objective}"
        keys = {"train": self.job.key, **self.job.sources}
        return export.card({"title": title, "What it is": {"student": view.model.name, **names}, "Recipe": recipe, "Keys": keys})

    def _metrics(self, lines: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
        kept = self.examples.kept
        lengths = [example.length for example in kept]
        return {
            "n_train": len(kept),
            "train_tokens": sum(lengths),
            "mean_tokens": sum(lengths) / len(lengths),
            "median_tokens": median(lengths),
            "longest_tokens": max(lengths),
            "share_truncated": self.examples.n_truncated / self.examples.n_rows,
            "n_dropped": len(self.examples.dropped),
            "dropped": list(self.examples.dropped),
            **summarise(lines),
            "world_size": self.world.size,
            "micro_batch": self.layouter.micro_batch,
            "attention": self.attention,
            "timings": timings(lines, seconds),
        }


def _names(batch: list[Example], shown: int = 8) -> str:
    names = ", ".join(example.problem_id for example in batch[:shown])
    return names + (f", … {len(batch) - shown} more" if len(batch) > shown else "")


def _draw_seed(seed: int, step: int, rank: int) -> int:
    """Seed of a step's dropout: a function of run, step and rank, so nothing of it needs saving."""
    return hash((seed, step, rank)) & 0x7FFF_FFFF_FFFF_FFFF
