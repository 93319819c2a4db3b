"""Gradients of the engine against a plain reference: the definition, one example at a time, in float32."""

from __future__ import annotations

import copy
import itertools
import os
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qup.config.schema import Trainer, Zero
from qup.training.batches import Layouter, lay_out, tensors_of
from qup.training.engine import Engine
from qup.training.examples import Example
from qup.training.ranks import Meeting, World, process_group
from qup.training.student import prepare, probe
from tests.helpers.tiny import tiny_model
from tests.training.world import TRAINER

Gradients = dict[str, torch.Tensor]
STAGES = {"stage0": Zero(0), "stage1": Zero(1), "stage2": Zero(2), "stage3": Zero(3), "stage3_offload": Zero(3, True)}
BETA = 0.9


def batch() -> list[Example]:
    draw = np.random.default_rng(0)
    lengths = [14, 9, 40, 22, 31, 12, 27, 18]
    return [Example(i, f"p{i}", draw.integers(3, 60, n).astype(np.int32), 3 + i % 4, False) for i, n in enumerate(lengths)]


def token_losses(model: Any, example: Example, objective: str) -> torch.Tensor:
    ids = torch.from_numpy(example.ids).long()[None]
    logp_T = model(input_ids=ids).logits[0].float().log_softmax(-1)[:-1].gather(1, ids[0, 1:, None]).squeeze(1)
    logp_T = logp_T[example.n_prompt - 1 :]
    return -logp_T if objective == "sft" else -logp_T.exp().detach() * logp_T


def reference(model: Any, objective: str, groups: list[list[Example]] | None = None) -> tuple[float, Gradients]:
    """Global token mean; with `groups` the mean over groups of each group's token mean."""
    model = copy.deepcopy(model)
    total: Any = 0.0
    for group in groups or [batch()]:
        losses = torch.cat([token_losses(model, example, objective) for example in group])
        total = total + losses.mean() / len(groups or [1])
    total.backward()
    return float(total), {name: parameter.grad for name, parameter in model.named_parameters()}


def gradients(engine: Engine) -> Gradients:
    """What the optimizer was given, read out of its first moment after one step: m = (1 − β₁) g."""
    from deepspeed.utils import safe_get_full_optimizer_state

    found = {}
    for name, parameter in engine.model.named_parameters():
        if engine.zero.stage == 0:
            moment = engine.optimizer.state[parameter]["exp_avg"]
        else:
            moment = safe_get_full_optimizer_state(parameter, "exp_avg")
        found[name.removeprefix("causal.")] = moment / (1 - BETA)
    return found


def one_step(model: Any, trainer: Trainer, zero: Zero, world: World, micro_batch: int, packing: bool, row: int = 64) -> tuple[Any, Gradients]:
    """A step on the batch by a fresh engine, inside a process group."""
    engine = Engine(prepare(copy.deepcopy(model), trainer, zero), trainer, zero, world)
    probe(engine.model, "cpu")  # type: ignore[arg-type]
    examples = batch()
    step = lay_out(examples, Layouter(world.size, micro_batch, packing, row, in_order=trainer.normalisation != "global"))
    result = engine.step(step, [example.n_targets for example in examples], tensors_of(examples, step, world.rank, 0), 1e-3)
    found = gradients(engine)
    engine.close()
    return result, found


def error_of(found: Gradients, expected: Gradients) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected)


def trainer_of(objective: str, **changes: Any) -> Trainer:
    return replace(TRAINER, objective=objective, clip=0.0, betas=[BETA, 0.95], **changes)


ACCUMULATION = {"packed-1": (True, 16, 1), "packed-2": (True, 2, 2), "packed-4": (True, 1, 4), "padded-1": (False, 8, 1), "padded-4": (False, 2, 4)}
"""Packing, rows a micro-batch, micro-batches a step on one rank; the batch packs into four rows of at most 64."""


@pytest.fixture(scope="module")
def group() -> Iterator[World]:
    world = World()
    with process_group(world):
        yield world


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("objective", ["sft", "dft"])
@pytest.mark.parametrize("stage", STAGES)
def test_gradients_on_one_rank(group: World, stage: str, objective: str, tied: bool) -> None:
    model = tiny_model(tie_word_embeddings=tied, scale=0.3)
    loss, expected = reference(model, objective)
    trainer = trainer_of(objective)
    for name, (packing, micro_batch, turns) in ACCUMULATION.items():
        if stage.startswith("stage3") and name in ("packed-2", "padded-1"):
            continue
        step = lay_out(batch(), Layouter(1, micro_batch, packing, 64))
        assert len(step.micro_batches) == turns, name
        result, found = one_step(model, trainer, STAGES[stage], group, micro_batch, packing)
        assert abs(result.loss - loss) < 1e-5 * abs(loss), name
        assert error_of(found, expected) < 1e-5, name


def _rank(rank: int, folder: Path, out: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    world = World(rank, 2, rank)
    found = {}
    with process_group(world, Meeting(folder, "127.0.0.1", 30)):
        for name, (model, trainer, zero, micro_batch, packing) in two_rank_cases().items():
            result, grads = one_step(model, trainer, zero, world, micro_batch, packing)
            found[name] = (result.loss, grads)
    torch.save(found, out / f"{rank}.pt")


def two_rank_cases() -> dict[str, tuple[Any, Trainer, Zero, int, bool]]:
    """Two ranks, every stage; accumulation of 1, 2 and 4."""
    cases = {}
    for (stage, zero), objective in itertools.product(STAGES.items(), ("sft", "dft")):
        model = tiny_model(tie_word_embeddings=objective == "dft", scale=0.3)
        for packing, micro_batch in ((True, 16), (True, 1), (False, 1)):
            cases[f"{stage} {objective} {packing} {micro_batch}"] = (model, trainer_of(objective), zero, micro_batch, packing)
    for normalisation in ("micro_batch", "dft_repo"):
        trainer = trainer_of("sft", normalisation=normalisation, packing=False)
        cases[normalisation] = (tiny_model(scale=0.3), trainer, Zero(1), 2, False)
    return cases


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[float, Gradients]]]:
    """All two-rank cases, run by two forked processes one after the other."""
    import gc

    folder = tmp_path_factory.mktemp("two-ranks")
    children = []
    for rank in range(2):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                gc.freeze()
                _rank(rank, folder, folder)
                status = 0
            except BaseException:
                (folder / f"{rank}.error").write_text(traceback.format_exc())
            finally:
                os._exit(status)
        children.append(pid)
    ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert ended == [0, 0], [path.read_text() for path in folder.glob("*.error")]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_gradients_on_two_ranks(two_ranks: list[dict[str, tuple[float, Gradients]]]) -> None:
    cases = {name: case for name, case in two_rank_cases().items() if " " in name}
    assert len(cases) == 30
    expected = {
        objective: reference(tiny_model(tie_word_embeddings=objective == "dft", scale=0.3), objective) for objective in ("sft", "dft")
    }
    for name in cases:
        loss, grads = expected[name.split()[1]]
        for ranks in two_ranks:
            found_loss, found = ranks[name]
            assert abs(found_loss - loss) < 1e-5 * abs(loss), name
            assert error_of(found, grads) < 1e-5, name


def groups_of_two_ranks() -> list[list[Example]]:
    """Micro-batches of two examples as a distributed sampler deals them to two ranks."""
    examples = batch()
    return [[examples[0], examples[2]], [examples[4], examples[6]], [examples[1], examples[3]], [examples[5], examples[7]]]


def test_mean_of_means_on_two_ranks(two_ranks: list[dict[str, tuple[float, Gradients]]]) -> None:
    loss, expected = reference(tiny_model(scale=0.3), "sft", groups_of_two_ranks())
    found_loss, found = two_ranks[0]["micro_batch"]
    assert abs(found_loss - loss) < 1e-5 * loss
    assert error_of(found, expected) < 1e-5


def test_the_dft_authors_gradient_sums_a_ranks_micro_batches(two_ranks: list[dict[str, tuple[float, Gradients]]]) -> None:
    """Two micro-batches a rank: the gradient is twice the mean of means, the logged loss is that mean (PAPER, "DFT, exactly")."""
    loss, expected = reference(tiny_model(scale=0.3), "sft", groups_of_two_ranks())
    found_loss, found = two_ranks[0]["dft_repo"]
    assert abs(found_loss - loss) < 1e-5 * loss
    assert error_of(found, {name: 2 * grad for name, grad in expected.items()}) < 1e-5


def test_clipping_and_norm(group: World) -> None:
    model = tiny_model(scale=0.3)
    _, expected = reference(model, "sft")
    norm = float(torch.stack([grad.norm() for grad in expected.values()]).norm())
    for zero in (Zero(0), Zero(1), Zero(3)):
        result, found = one_step(model, replace(trainer_of("sft"), clip=0.01), zero, group, 16, True)
        assert abs(result.grad_norm - norm) < 1e-4 * norm
        clipped = float(torch.stack([grad.norm() for grad in found.values()]).norm())
        assert abs(clipped - 0.01) < 1e-4


@pytest.mark.parametrize("stage", STAGES)
def test_a_gradient_that_is_not_finite_changes_nothing(group: World, stage: str) -> None:
    zero, trainer = STAGES[stage], trainer_of("sft")
    engine = Engine(prepare(tiny_model(scale=0.3), trainer, zero), trainer, zero, group)
    examples = batch()
    step = lay_out(examples, Layouter(1, 2, True, 64))
    targets = [example.n_targets for example in examples]
    engine.step(step, targets, tensors_of(examples, step, 0, 0), 1e-3)
    from qup.training.export import whole_weights

    before = {name: tensor.clone() for name, tensor in whole_weights(engine, None).items()}  # type: ignore[union-attr]
    moments = gradients(engine)
    poison = engine.model.causal.get_output_embeddings().register_forward_pre_hook(lambda module, args: (args[0] * float("nan"), *args[1:]))
    bad = engine.step(step, targets, tensors_of(examples, step, 0, 0), 1e-3)
    poison.remove()
    assert bad.skipped
    after = whole_weights(engine, None)
    assert all(torch.equal(before[name], after[name]) for name in before)  # type: ignore[index]
    assert all(torch.equal(moments[name], grad) for name, grad in gradients(engine).items())
    good = engine.step(step, targets, tensors_of(examples, step, 0, 0), 1e-3)
    assert not good.skipped and good.grad_norm > 0
    engine.close()
