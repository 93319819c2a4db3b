"""Gradients of the engine against the plain reference, on two ranks, and the normalisations that depend on who computes what."""

from __future__ import annotations

import gc
import itertools
import os
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch

from qup.config.schema import Trainer, Zero
from qup.training.examples import Example
from qup.training.ranks import Meeting, World, process_group
from qup.training.worker import die_with_parent
from tests.helpers.tiny import tiny_model
from tests.training.reference import STAGES, Gradients, batch, error_of, one_step, reference, trainer_of


def _rank(rank: int, folder: Path, out: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    world = World(rank, 2, rank)
    found = {}
    with process_group(world, Meeting(folder, "127.0.0.1", 30)):
        for name, (model, trainer, zero, (packing, micro_batch, times, turns)) in two_rank_cases().items():
            weighted = name.startswith("weighted")
            result, grads = one_step(model, trainer, zero, world, micro_batch, packing, times=times, turns=turns, weighted=weighted)
            found[name] = (result.loss, grads)
    torch.save(found, out / f"{rank}.pt")


LAYOUTS = {
    "packed-1": (True, 16, 1, 1),
    "packed-2": (True, 1, 1, 2),
    "packed-4": (True, 1, 2, 4),
    "padded-1": (False, 4, 1, 1),
    "padded-2": (False, 2, 1, 2),
    "padded-4": (False, 1, 1, 4),
    "padded-dummy": (False, 3, 1, 2),
}
"""Packing, rows a micro-batch, how often the eight examples come, micro-batches a rank; the last leaves one rank a turn without examples."""


def two_rank_cases() -> dict[str, tuple[Any, Trainer, Zero, tuple[bool, int, int, int]]]:
    """Two ranks, every stage; accumulation of 1, 2 and 4, packed and padded."""
    cases = {}
    for (stage, zero), objective in itertools.product(STAGES.items(), ("sft", "dft")):
        model = tiny_model(tie_word_embeddings=objective == "dft", scale=0.3)
        for name, layout in LAYOUTS.items():
            cases[f"{stage} {objective} {name}"] = (model, trainer_of(objective), zero, layout)
    for normalisation in ("micro_batch", "dft_repo"):
        trainer = trainer_of("sft", normalisation=normalisation, packing=False)
        cases[normalisation] = (tiny_model(scale=0.3), trainer, Zero(1), (False, 2, 1, 2))
        cases[f"weighted-{normalisation}"] = cases[normalisation]
    for objective, name, stage in itertools.product(("sft", "dft"), ("packed-2", "padded-dummy"), ("stage1", "stage3")):
        cases[f"weighted-{objective}-{name}-{stage}"] = (tiny_model(scale=0.3), trainer_of(objective), STAGES[stage], LAYOUTS[name])
    return cases


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[float, Gradients]]]:
    """All two-rank cases, run by two forked processes one after the other."""
    parent = os.getpid()
    folder = tmp_path_factory.mktemp("two-ranks")
    children = []
    for rank in range(2):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                gc.freeze()
                die_with_parent(parent)
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
    assert len(cases) == 70
    expected = {
        (objective, times): reference(tiny_model(tie_word_embeddings=objective == "dft", scale=0.3), objective, times=times)
        for objective, times in itertools.product(("sft", "dft"), (1, 2))
    }
    for name, (_, _, _, layout) in cases.items():
        loss, grads = expected[name.split()[1], layout[2]]
        for ranks in two_ranks:
            found_loss, found = ranks[name]
            assert abs(found_loss - loss) < 1e-5 * abs(loss), name
            assert error_of(found, grads) < 1e-5, name


@pytest.mark.parametrize("objective", ["sft", "dft"])
def test_example_weights_on_two_ranks(two_ranks: list[dict[str, tuple[float, Gradients]]], objective: str) -> None:
    cases = [name for name in two_rank_cases() if name.startswith(f"weighted-{objective}-")]
    assert len(cases) == 4
    loss, expected = reference(tiny_model(scale=0.3), objective, [batch(weighted=True)])
    for name in cases:
        for ranks in two_ranks:
            assert abs(ranks[name][0] - loss) < 1e-5 * abs(loss), name
            assert error_of(ranks[name][1], expected) < 1e-5, name


def groups_of_two_ranks(weighted: bool = False) -> list[list[Example]]:
    """Micro-batches of two examples as a distributed sampler deals them to two ranks."""
    examples = batch(weighted=weighted)
    return [[examples[0], examples[2]], [examples[4], examples[6]], [examples[1], examples[3]], [examples[5], examples[7]]]


@pytest.mark.parametrize("weighted", [False, True])
def test_mean_of_means_on_two_ranks(two_ranks: list[dict[str, tuple[float, Gradients]]], weighted: bool) -> None:
    loss, expected = reference(tiny_model(scale=0.3), "sft", groups_of_two_ranks(weighted))
    found_loss, found = two_ranks[0]["weighted-micro_batch" if weighted else "micro_batch"]
    assert abs(found_loss - loss) < 1e-5 * loss
    assert error_of(found, expected) < 1e-5


@pytest.mark.parametrize("weighted", [False, True])
def test_the_dft_authors_gradient_sums_a_ranks_micro_batches(two_ranks: list[dict[str, tuple[float, Gradients]]], weighted: bool) -> None:
    """Two micro-batches a rank: the gradient is twice the mean of means, the logged loss is that mean (PAPER, "DFT, exactly")."""
    loss, expected = reference(tiny_model(scale=0.3), "sft", groups_of_two_ranks(weighted))
    found_loss, found = two_ranks[0]["weighted-dft_repo" if weighted else "dft_repo"]
    assert abs(found_loss - loss) < 1e-5 * loss
    assert error_of(found, {name: 2 * grad for name, grad in expected.items()}) < 1e-5
