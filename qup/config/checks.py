"""What a cell's settings must be to each other. Each check yields faults; none raises."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from qup.config.keys import one_of
from qup.config.measured import car_reward
from qup.config.paths import local, missing
from qup.config.schema import Benchmark, Config, LabProblems, Model, Problems, Reward, Sampling, Trainer
from qup.config.settle import BASE
from qup.config.streams import named_reward, stream_faults
from qup.errors import Fault
from qup.files import read_json
from qup.measures import KINDS

WANDB_NAME, WANDB_TAG, WANDB_NOT_IN_PROJECTS = 128, 64, "/\\#?%:"
"""What W&B takes: longest project and group, longest tag, characters that a project may not have."""
COLUMN = re.compile(r"[A-Za-z_]\w*")


def ranks(cell: Config) -> int:
    """Processes of a training: nodes times tasks or GPUs a node."""
    asked = cell.cluster.train
    gpus = asked.gpus.rpartition(":")[2]
    return asked.nodes * max(asked.tasks, int(gpus) if gpus.isdigit() else 0)


def cross_faults(cell: Config) -> Iterator[Fault]:
    """Everything about a cell that no single setting tells."""
    yield from _problems(cell.problems)
    yield from _model(cell.model)
    yield from _sampling("rollouts.sampling", cell.rollouts.sampling, cell.model)
    yield from _sampling("evaluation.sampling", cell.evaluation.sampling, cell.model)
    yield from _evaluation(cell)
    yield from _rewards(cell)
    yield from _measures(cell)
    if cell.stream.name != BASE:
        yield from stream_faults(cell)
        yield from _trainer(cell)
        yield from _ranks(cell)
    yield from _tracking(cell)
    yield from _study(cell)


def _path(key: str, path: str, lab: object, choices: str) -> Iterator[Fault]:
    if lab is not None:
        if path:
            yield Fault(f"{key}.path", path, f"{key}.lab is set as well, which makes its own; choose {choices}")
    elif not path:
        yield Fault(f"{key}.path", path, f"is needed: a local path or a hub name; or choose {choices}")
    elif why := missing(path):
        yield Fault(f"{key}.path", path, why)


def _remote_code(key: str, of: Model | Reward) -> Iterator[Fault]:
    if of.trust_remote_code and of.path and not of.revision and local(of.path) is None:
        yield Fault(
            f"{key}.trust_remote_code", True, f"runs code from the hub; pin it with {key}.revision=<commit>, or give a local directory"
        )


def _lab(key: str, lab: LabProblems | None) -> Iterator[Fault]:
    if lab is not None and lab.min_steps > lab.max_steps:
        yield Fault(f"{key}.lab.min_steps", lab.min_steps, f"must not exceed {key}.lab.max_steps={lab.max_steps}")


def _problems(problems: Problems) -> Iterator[Fault]:
    yield from _path("problems", problems.path, problems.lab, "problems=lab, gsm8k, mawps or numina_cot")
    yield from _lab("problems", problems.lab)
    template = problems.solution_template
    if template is not None and "{answer}" not in template:
        yield Fault("problems.solution_template", template, "must hold {answer}, which stands for the gold answer")
    yield from _benchmarks("problems.decontaminate_against", problems.decontaminate_against)


def _benchmarks(key: str, benchmarks: Mapping[str, Benchmark]) -> Iterator[Fault]:
    for name, benchmark in benchmarks.items():
        if not COLUMN.fullmatch(name):
            yield Fault(f"{key}.{name}", name, "must be letters, digits and _, for it names a column")
        yield from _path(f"{key}.{name}", benchmark.path, benchmark.lab, "evaluation=lab or avg16")
        yield from _lab(f"{key}.{name}", benchmark.lab)


def _model(model: Model) -> Iterator[Fault]:
    yield from _path("model", model.path, model.lab, "a model of conf/model")
    yield from _remote_code("model", model)
    if model.lab is not None and model.lab.hidden % (2 * model.lab.heads):
        yield Fault("model.lab.hidden", model.lab.hidden, f"must be a multiple of 2 × model.lab.heads={model.lab.heads}")
    if model.attention == "flash_attention_2" and model.dtype != "bfloat16":
        yield Fault("model.attention", model.attention, f"needs model.dtype=bfloat16, not {model.dtype}")
    if "" in model.stop:
        yield Fault("model.stop", model.stop, "an empty string would stop every response at once")


def _sampling(key: str, sampling: Sampling, model: Model) -> Iterator[Fault]:
    if sampling.backend == "openai":
        for name in ("base_url", "served_model"):
            if not getattr(sampling, name):
                yield Fault(f"{key}.{name}", getattr(sampling, name), f"is needed with {key}.backend=openai")
    if sampling.min_new_tokens > sampling.max_new_tokens:
        yield Fault(f"{key}.min_new_tokens", sampling.min_new_tokens, f"must not exceed {key}.max_new_tokens={sampling.max_new_tokens}")
    if model.context is not None and sampling.min_new_tokens >= model.context:
        yield Fault(f"{key}.min_new_tokens", sampling.min_new_tokens, f"leaves no room for a prompt in model.context={model.context}")


def _evaluation(cell: Config) -> Iterator[Fault]:
    evaluation = cell.evaluation
    if not evaluation.benchmarks:
        yield Fault("evaluation.benchmarks", {}, "is empty: nothing would be measured; choose evaluation=lab or avg16")
    yield from _benchmarks("evaluation.benchmarks", evaluation.benchmarks)
    if evaluation.sampling.backend == "openai" and cell.stream.name != BASE:
        yield Fault("evaluation.sampling.backend", "openai", "an endpoint can't serve the weights trained here; transformers or vllm")
    for name, first in evaluation.dev.items():
        benchmark = evaluation.benchmarks.get(name)
        if benchmark is None:
            yield Fault(f"evaluation.dev.{name}", first, f"is no benchmark; {one_of(name, evaluation.benchmarks)}")
            continue
        sizes = [size for size in (benchmark.limit, benchmark.lab.n if benchmark.lab else None) if size is not None]
        if first < 1 or (sizes and first >= min(sizes)):
            most = f" and below {min(sizes)}, so that some are left to report" if sizes else ""
            yield Fault(f"evaluation.dev.{name}", first, f"must be at least 1{most}")


def _rewards(cell: Config) -> Iterator[Fault]:
    for name, reward in cell.reward.items():
        key = f"reward.{name}"
        if not COLUMN.fullmatch(name):
            yield Fault(key, name, "must be letters, digits and _, for it names a column")
        yield from _path(key, reward.path, reward.lab, "a reward model of conf/reward")
        yield from _remote_code(key, reward)
        if (reward.format == "lab") != (reward.lab is not None):
            yield Fault(f"{key}.format", reward.format, "lab goes with reward models of the lab, and with no others")
        if reward.lab is not None and reward.lab.kind == "outcome" and cell.problems.lab is None:
            yield Fault(key, "lab outcome", "reads only the lab's own problems; choose another, reward=[lab_steps] for one")
    yield from named_reward("verdict.reward", cell.verdict.reward, cell)


def _tracking(cell: Config) -> Iterator[Fault]:
    """What W&B would refuse hours later; the study's name is the group of its runs."""
    tracking = cell.tracking
    if tracking.name != "wandb":
        return
    if not 0 < len(tracking.project) <= WANDB_NAME or set(tracking.project) & set(WANDB_NOT_IN_PROJECTS):
        valid = f"must be 1 to {WANDB_NAME} characters without {' '.join(WANDB_NOT_IN_PROJECTS)}, as W&B wants it"
        yield Fault("tracking.project", tracking.project, valid)
    for tag in tracking.tags:
        if not 0 < len(tag) <= WANDB_TAG:
            yield Fault("tracking.tags", tag, f"must be 1 to {WANDB_TAG} characters each, as W&B wants it, and is {len(tag)}")
    if cell.study.name and len(cell.study.name) > WANDB_NAME:
        valid = f"must be at most {WANDB_NAME} characters with tracking=wandb, whose group it names, and is {len(cell.study.name)}"
        yield Fault("study.name", cell.study.name, valid)


NO_UP_PROJ = {"gpt2": "mlp.c_fc", "gpt_neox": "mlp.dense_h_to_4h", "phi3": "mlp.gate_up_proj", "phi": "mlp.fc1", "opt": "fc1"}
"""Architectures without mlp.up_proj, and what widens their MLP."""


def _measures(cell: Config) -> Iterator[Fault]:
    for name, measure in cell.measure.items():
        key = f"measure.{name}"
        if not COLUMN.fullmatch(name):
            yield Fault(key, name, "must be letters, digits and _, for it names a column")
        if measure.better is not None and measure.kind != "length":
            yield Fault(f"{key}.better", measure.better, f"is for length; {measure.kind} has its own: {KINDS[measure.kind].better}")
        if measure.window >= 1 and measure.window != int(measure.window):
            yield Fault(f"{key}.window", measure.window, "must be a share below 1 or a whole number of steps")
        if measure.kind == "car":
            if not cell.reward:
                yield Fault(key, "car", "reads a reward model, and none is configured; reward=[…], or leave it out of measure=")
            yield from named_reward(f"{key}.reward", car_reward(measure, cell) if cell.reward else None, cell)
        elif measure.reward is not None:
            yield Fault(f"{key}.reward", measure.reward, f"is read by car, not by {measure.kind}")
        if measure.kind == "scas" and (wider := NO_UP_PROJ.get(_architecture(cell.model))) and cell.perplexity.activation == "mlp.up_proj":
            yield Fault(
                "perplexity.activation", "mlp.up_proj", f"the student is a {_architecture(cell.model)}, which has {wider}; name that"
            )


def _architecture(model: Model) -> str:
    """model_type of a local directory's config.json; "" where it isn't known yet."""
    found = local(model.path) if model.path else None
    read = read_json(found / "config.json") if found is not None else None
    return str((read or {}).get("model_type", ""))


def _trainer(cell: Config) -> Iterator[Fault]:
    trainer = cell.trainer
    if len(trainer.betas) != 2 or not all(0 <= beta < 1 for beta in trainer.betas):
        yield Fault("trainer.betas", trainer.betas, "must be two numbers, each at least 0 and below 1")
    if any(not 0 < share <= 1 for share in trainer.evaluate_at):
        yield Fault("trainer.evaluate_at", trainer.evaluate_at, "must be shares of the run above 0 and at most 1")
    if cell.model.context is not None and trainer.max_length > cell.model.context:
        yield Fault("trainer.max_length", trainer.max_length, f"must not exceed model.context={cell.model.context}")
    if trainer.row_tokens is not None and trainer.row_tokens < trainer.max_length:
        yield Fault("trainer.row_tokens", trainer.row_tokens, f"must hold the longest example, trainer.max_length={trainer.max_length}")
    if isinstance(trainer.micro_batch, str) and trainer.micro_batch != "auto":
        yield Fault("trainer.micro_batch", trainer.micro_batch, "must be a whole number or auto")
    if isinstance(trainer.micro_batch, int) and trainer.micro_batch < 1:
        yield Fault("trainer.micro_batch", trainer.micro_batch, "must be at least 1")
    if trainer.normalisation != "global":
        if trainer.packing:
            yield Fault("trainer.packing", True, f"must be false with trainer.normalisation={trainer.normalisation}")
        if not isinstance(trainer.micro_batch, int):
            valid = f"must be a number with trainer.normalisation={trainer.normalisation}, for the result depends on it"
            yield Fault("trainer.micro_batch", trainer.micro_batch, valid)
    kernel = cell.model.attention if trainer.attention == "auto" else trainer.attention
    if kernel in ("flash_attention_2", "torch_varlen") and trainer.dtype != "bfloat16":
        key = "model" if trainer.attention == "auto" else "trainer"
        yield Fault(
            f"{key}.attention", kernel, f"needs trainer.dtype=bfloat16 to train, not {trainer.dtype}; sdpa, or trainer.attention=sdpa"
        )
    if kernel == "torch_varlen" and trainer.dropout > 0:
        yield Fault("trainer.attention", kernel, f"knows no attention dropout, and trainer.dropout={trainer.dropout:g}; sdpa")
    if trainer.liger and cell.model.device == "cpu":
        yield Fault("trainer.liger", True, "needs a GPU, and model.device=cpu; false")
    if cell.zero.offload and cell.zero.stage != 3:
        yield Fault("zero.offload", True, f"goes with zero.stage=3, not {cell.zero.stage}; zero=stage3_offload")
    if cell.zero.stage == 0 and trainer.dtype == "bfloat16":
        yield Fault("zero.stage", 0, "is wrong with trainer.dtype=bfloat16 (an update before the first step); zero=stage1, or float32")
    if trainer.master == "bfloat16" and trainer.dtype != "bfloat16":
        yield Fault("trainer.master", trainer.master, f"needs trainer.dtype=bfloat16, not {trainer.dtype}; float32")
    if trainer.master == "bfloat16" and cell.zero.offload:
        yield Fault("trainer.master", trainer.master, "can't be offloaded to CPU memory; float32, or zero=stage3")


def _ranks(cell: Config) -> Iterator[Fault]:
    trainer: Trainer = cell.trainer
    count = ranks(cell)
    micro = trainer.micro_batch if isinstance(trainer.micro_batch, int) and trainer.micro_batch >= 1 else 1
    if trainer.batch_size % (micro * count):
        many = f" on {count} ranks" if count > 1 else ""
        yield Fault(
            "trainer.batch_size",
            trainer.batch_size,
            f"must be a multiple of {micro * count}: trainer.micro_batch={trainer.micro_batch}{many}",
        )


def _study(cell: Config) -> Iterator[Fault]:
    name = cell.study.name
    if name and not re.fullmatch(r"[A-Za-z0-9][\w.+@-]*", name):
        yield Fault("study.name", name, "must be letters, digits and . _ - +, for it names a folder")
    if cell.study.replace and cell.study.extend:
        yield Fault("study.replace", True, "study.extend=true is set as well, which keeps the old cells; choose one of them")
    for key, path in (("store.dir", cell.store.dir), ("study.dir", cell.study.dir)):
        found = local(f"./{path}" if path and not path.startswith(("/", "~", ".")) else path) if path else None
        if found is None or (found.exists() and not found.is_dir()):
            yield Fault(key, path, "must be a directory, there or to be made")
    seeds = {
        "seed": cell.seed,
        "rollouts.sampling.seed": cell.rollouts.sampling.seed,
        "selection.seed": cell.selection.seed,
        "oracle.seed": cell.oracle.seed,
        **{f"teacher.{name}.seed": oracle.seed for name, oracle in cell.teacher.items()},
        "judge.seed": cell.judge.seed,
        "retention.seed": cell.retention.seed,
        "trainer.seed": cell.trainer.seed,
        "evaluation.sampling.seed": cell.evaluation.sampling.seed,
    }
    for key, seed in seeds.items():
        if seed is not None and not 0 <= seed < 2**32:
            yield Fault(key, seed, "must be at least 0 and below 2^32")
