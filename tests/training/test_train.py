from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qup.config.schema import LabStudent, Lora, Zero
from qup.errors import InputError, Interrupted
from tests.training.world import Workshop, furthest, same, stream_table


def test_a_run_writes_model_log_and_metrics(workshop: Workshop) -> None:
    metrics = workshop.train(epochs=2)
    assert (metrics["steps"], metrics["n_train"], metrics["world_size"]) == (10, 40, 1)
    assert metrics["train_nll_last"] < metrics["train_nll_first"]
    assert 9 <= metrics["median_tokens"] <= metrics["mean_tokens"] * 1.2 and metrics["mean_tokens"] < metrics["longest_tokens"] <= 49
    steps = [json.loads(line) for line in (workshop.out / "steps.jsonl").read_text().splitlines()]
    assert metrics["row_tokens"] == sum(step["computed"] for step in steps) / sum(step["rows"] for step in steps) > 20
    assert [step["step"] for step in steps] == list(range(1, 11))
    assert workshop.progress[-1] == (10, 10, "steps")


def test_the_model_loads_anywhere_and_stops_on_the_trained_token(workshop: Workshop) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    workshop.train(max_steps=1)
    directory = workshop.out / "model"
    model = AutoModelForCausalLM.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert tokenizer.chat_template
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert model.generation_config.eos_token_id[0] == end
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in directory.iterdir())
    assert "learning rate" in (directory / "README.md").read_text()


def test_training_may_use_another_prompt_and_eos_as_the_dft_recipe_does(shop: Callable[..., Workshop]) -> None:
    ours, theirs = shop("ours"), shop("theirs")
    first = ours.train(max_steps=1)
    second = theirs.train(max_steps=1, template="qwen_boxed", ending="eos")
    assert second["train_tokens"] > first["train_tokens"], "the instruction is longer"
    generation = json.loads((theirs.out / "model" / "generation_config.json").read_text())
    assert generation["eos_token_id"][0] == 2
    assert "qwen_boxed, ending eos" in (theirs.out / "model" / "README.md").read_text()


@pytest.mark.parametrize("zero", [Zero(0), Zero(1), Zero(2), Zero(3), Zero(3, True)], ids=str)
def test_every_zero_stage_learns_the_same(shop: Callable[..., Workshop], zero: Zero) -> None:
    reference, other = shop("reference", "tied"), shop("other", "tied")
    reference.train(zero=Zero(1), objective="dft", max_steps=3)
    other.train(zero=zero, objective="dft", max_steps=3)
    assert furthest(other.weights(), reference.weights()) < 1e-5


@pytest.mark.parametrize("zero", [Zero(1), Zero(2), Zero(3)], ids=str)
def test_bfloat16(shop: Callable[..., Workshop], zero: Zero) -> None:
    plain, half = shop("plain"), shop("half")
    plain.train(epochs=2)
    metrics = half.train(zero=zero, dtype="bfloat16", epochs=2, micro_batch=2)
    assert metrics["train_nll_last"] < metrics["train_nll_first"]
    assert furthest({name: tensor.float() for name, tensor in half.weights().items()}, plain.weights()) < 0.02


@pytest.mark.parametrize("zero", [Zero(0), Zero(1), Zero(3)], ids=str)
def test_activation_checkpointing_changes_nothing(shop: Callable[..., Workshop], zero: Zero) -> None:
    plain, saving = shop("plain"), shop("saving")
    plain.train(zero=zero, max_steps=3)
    saving.train(zero=zero, max_steps=3, activation_checkpointing=True)
    assert furthest(saving.weights(), plain.weights()) < 1e-5


@pytest.mark.parametrize("zero", [Zero(1), Zero(2), Zero(3)], ids=str)
@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_adapters_are_merged(shop: Callable[..., Workshop], zero: Zero, activation_checkpointing: bool) -> None:
    from safetensors.torch import load_file

    work = shop("lora")
    work.train(
        zero=zero, max_steps=4, lr=1e-2, lora=Lora(4, 8.0, targets=["q_proj", "up_proj"]), activation_checkpointing=activation_checkpointing
    )
    before, after = load_file(work.student / "model.safetensors"), work.weights()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert before.keys() == after.keys()
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "up_proj"}


def test_compiled_body(shop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **settings: whole(self, backend="eager", **settings))  # no C++ build of a minute
    plain, compiled = shop("plain"), shop("compiled")
    plain.train(max_steps=2)
    compiled.train(max_steps=2, compile=True)
    assert furthest(compiled.weights(), plain.weights()) < 1e-5


def test_dropout_draws_are_a_function_of_seed_and_step(shop: Callable[..., Workshop]) -> None:
    names = ("a", "b", "other", "none")
    work = {name: shop(name) for name in names}
    for name, settings in zip(names, ({"dropout": 0.2}, {"dropout": 0.2}, {"dropout": 0.2, "seed": 1}, {}), strict=True):
        work[name].train(max_steps=2, **settings)
    assert same(work["a"].weights(), work["b"].weights())
    assert not same(work["a"].weights(), work["none"].weights())


def test_weights_on_the_way_are_kept_for_evaluation(workshop: Workshop) -> None:
    with pytest.raises(Interrupted):
        workshop.train(evaluate_at=[0.25, 1.0], stop_at=3)
    workshop.train(evaluate_at=[0.25, 1.0])
    assert sorted(path.name for path in workshop.out.iterdir()) == ["model", "model-0.25", "steps.jsonl"]
    assert not same(workshop.weights("model-0.25"), workshop.weights())


def test_shares_of_a_short_run_that_fall_on_one_step_are_all_kept(workshop: Workshop) -> None:
    workshop.train(max_steps=2, evaluate_at=[0.25, 0.5, 0.75, 1.0])
    assert sorted(path.name for path in workshop.out.glob("model*")) == ["model", "model-0.25", "model-0.5", "model-0.75"]
    assert same(workshop.weights("model-0.25"), workshop.weights("model-0.5"))
    assert same(workshop.weights("model-0.75"), workshop.weights())


@pytest.mark.parametrize("student", ["llama", "tied"])
def test_utilisation_counts_the_weights_that_tokens_are_multiplied_by(
    shop: Callable[..., Workshop], student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of embeddings is looked up, not multiplied, be it tied to the output layer or apart."""
    monkeypatch.setattr("qup.training.loop.peak_flops", lambda device: 1e9)
    work = shop("run", student)
    work.train(max_steps=1, batch_size=1)
    step = json.loads((work.out / "steps.jsonl").read_text())
    weights = work.weights()
    head = weights["model.embed_tokens.weight"].numel()
    body = sum(tensor.numel() for name, tensor in weights.items() if "embed_tokens" not in name and name != "lm_head.weight")
    flops = 6 * (body * step["tokens"] + head * step["targets"]) + 6 * 2 * 32 * step["tokens"] ** 2
    assert math.isclose(step["mfu"] * step["seconds"] * 1e9, flops, rel_tol=1e-9)


def test_too_much_dropped_is_an_error_that_names_the_setting(workshop: Workshop) -> None:
    with pytest.raises(InputError, match=r"trainer.max_length=8: \d+ of 40 examples have no response token left \(p0"):
        workshop.train(max_length=8)


def test_first_and_last_nll_are_token_means(workshop: Workshop) -> None:
    metrics = workshop.train(epochs=4)
    steps = [json.loads(line) for line in (workshop.out / "steps.jsonl").read_text().splitlines()]
    assert len(steps) == 20
    assert math.isclose(metrics["train_nll_first"], steps[0]["nll"])
    assert math.isclose(metrics["train_nll_last"], steps[-1]["nll"])


def test_a_tuned_lab_student_ends_its_answers(tmp_path: Path) -> None:
    """The stop token is learnt: a lab student that knows nothing yet ends by it, after a few epochs on the lab's traces."""

    from transformers import AutoModelForCausalLM, AutoTokenizer

    from qup.files import write_table
    from qup.lab import chains, styles, tokenizer
    from qup.lab.student import new_model, save_model
    from qup.models import encode_prompt

    draw = random.Random(0)
    problems = [chains.draw(draw, "pretraining", 1, 1, 50) for _ in range(60)]
    rows = [(f"p{i}", problem.question, styles.render("native", problem, draw)) for i, problem in enumerate(problems)]
    stream, student = tmp_path / "stream.parquet", tmp_path / "student"
    write_table(stream, stream_table(rows))
    save_model(new_model(LabStudent(), {word: i for i, word in enumerate(tokenizer.vocabulary())}), student)
    work = Workshop(tmp_path / "run", student, stream, "lab")

    def ended(directory: Path) -> int:
        model, words = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
        found = 0
        for _, question, _ in rows[:10]:
            ids = torch.tensor([encode_prompt(words, "lab", question)])
            out = model.generate(ids, max_new_tokens=120, do_sample=False)
            found += out[0, -1].item() == words.eos_token_id
        return found

    before = ended(student)
    work.train(epochs=10, lr=5e-3, warmup_ratio=0.1, max_length=256)
    assert before == 0 and ended(work.out / "model") >= 9
