"""Rollouts, evaluation, the Oracle and reward models through a real vLLM server."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qup.config.schema import Benchmark, Evaluation, Model, Oracle, Sampling, Vllm
from qup.config.views import ResponsesView, RewardView, RolloutsView
from qup.errors import InputError
from qup.generation import Student, clamp, open_backend
from qup.models import load_model
from qup.oracle import Ask, open_oracle
from qup.records import CANDIDATES, PROBLEMS
from qup.scoring.rewards import RewardModel, load_reward_tokenizer
from qup.serving.facts import noted
from qup.stages import responses, reward, rollouts
from tests.helpers.artifacts import CANDIDATE, artifact, context, rows, run_sharded
from tests.helpers.tiny import make_tiny
from tests.scoring.test_formats import classifier, published
from tests.vllm.conftest import SIZES

QUESTIONS = [f"find {a} + {b} ?" for a in range(4) for b in range(4)]
SAMPLING = Sampling(n=4, backend="vllm", max_new_tokens=24, seed=3, shard_size=8)


def nll(model: torch.nn.Module, prompt: list[int], response: list[int]) -> list[float]:
    """Log-probabilities of a response by transformers."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0].float()
    logprobs = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
    return logprobs[torch.arange(len(response)), torch.tensor(response)].tolist()


def test_rollouts_are_the_students_own_and_recorded_with_the_version(tmp_path: Path, model: Path, vllm: Vllm) -> None:
    """Token ids as asked for, log-probabilities as transformers computes them, greedy samples as in process."""
    problems = [{"problem_id": str(p), "question": question} for p, question in enumerate(QUESTIONS)]
    inputs = {"problems": artifact(tmp_path, "problems", problems=rows(PROBLEMS, problems, answer="1", solution=""))}
    view = RolloutsView(Model(path=str(model), template="tokenizer"), SAMPLING, vllm)
    made = run_sharded(rollouts, view, inputs, context(tmp_path), "rollouts")
    assert made.metrics["n_samples"] == 4 * len(QUESTIONS)
    assert made.metrics["generation"]["version"]
    student, local = Student.open(view.model, None), load_model(view.model, None)
    table = made.table("rollouts").to_pylist()
    assert len({tuple(row["token_ids"]) for row in table}) > 3 * len(QUESTIONS), "samples of a problem differ"
    for row in table[::7]:
        prompt = list(student.request("p", QUESTIONS[int(row["problem_id"])], 1).prompt_ids)
        assert row["logprob_T"] == pytest.approx(nll(local, prompt, row["token_ids"]), abs=2e-3)
        assert row["finish"] == ("stop" if row["token_ids"][-1] in student.stop_ids else "length")


def test_greedy_evaluation_agrees_with_the_process_own(tmp_path: Path, model: Path, vllm: Vllm) -> None:
    """The server says that several greedy samples are not to be had; one is asked for and repeated."""
    file = tmp_path / "benchmark.jsonl"
    file.write_text("".join(json.dumps({"question": question, "answer": "1"}) + "\n" for question in QUESTIONS))
    evaluation = Evaluation(benchmarks={"b": Benchmark(path=str(file))}, sampling=replace(SAMPLING, temperature=0.0, n=2))
    view = ResponsesView(Model(path=str(model), template="tokenizer"), evaluation, vllm=vllm)
    served = run_sharded(responses, view, {}, context(tmp_path, "served"), "responses")
    own = replace(view, evaluation=replace(evaluation, sampling=replace(evaluation.sampling, backend="transformers")))
    computed = run_sharded(responses, own, {}, context(tmp_path, "own"), "responses")
    texts = [[row["text"] for row in made.table("responses").to_pylist()] for made in (served, computed)]
    assert sum(first == second for first, second in zip(*texts, strict=True)) >= 0.9 * len(texts[0])
    assert texts[0][0] == texts[0][1]


def test_after_a_refused_request_the_server_still_serves(tmp_path: Path, model: Path, vllm: Vllm) -> None:
    student = Student.open(Model(path=str(model), template="tokenizer"), None)
    good = clamp([student.request(str(p), question, 2) for p, question in enumerate(QUESTIONS)], student.context, 8, 1)
    with open_backend(student, replace(SAMPLING, n=2), context(tmp_path), vllm) as backend:
        with pytest.raises(InputError, match="vLLM refuses problem 0"):
            dict(backend.generate(replace(good, room=(100_000, *good.room[1:]))))
        assert len(dict(backend.generate(good))) == len(QUESTIONS)


def asked(count: int) -> list[Ask]:
    return [Ask(str(number), "refine", [{"role": "user", "content": f"find {number} ?"}]) for number in range(count)]


def test_the_oracle_is_served_and_answers_are_bought_once(tmp_path: Path, model: Path, vllm: Vllm) -> None:
    oracle = Oracle(backend="vllm", model="abc", content="abc", path=str(model), max_tokens=16, seed=1, temperature=1.0)
    with open_oracle(oracle, tmp_path, vllm=vllm, ledger=tmp_path / "ledger") as client:
        answers = {ask.id: answer for ask, answer in client.ask(asked(20))}
    assert len(answers) == 20
    assert all(answer.output_tokens for answer in answers.values())
    assert noted(tmp_path / "ledger")["served"]["version"]
    moved = model.rename(model.with_name("moved"))
    try:
        with open_oracle(replace(oracle, path=str(moved)), tmp_path, vllm=vllm) as client:
            again = list(client.ask(asked(20)))
        assert all(answer.from_store for _, answer in again)
    finally:
        moved.rename(model)


def test_a_base_model_is_no_oracle_until_it_is_given_a_template(tmp_path: Path, vllm: Vllm) -> None:
    base = make_tiny(tmp_path / "base", chat_template=None, **SIZES)
    oracle = Oracle(backend="vllm", model="base", content="abc", path=str(base), max_tokens=8, seed=1)
    with open_oracle(oracle, tmp_path, vllm=vllm) as client, pytest.raises(InputError, match="has no chat template, so it is a base model"):
        list(client.ask(asked(1)))
    template = "{% for message in messages %}<|user|>{{ message['content'] }}{% endfor %}<|assistant|>\n"
    with open_oracle(replace(oracle, chat_template=template), tmp_path, vllm=vllm) as client:
        assert len(list(client.ask(asked(3)))) == 3


@pytest.mark.parametrize("form", ["qwen25_math_rm", "skywork_v2"])
def test_pooled_scores_are_those_of_the_process_own(tmp_path: Path, vllm: Vllm, form: str) -> None:
    """Qwen's by vLLM's own class for that architecture, which shares no code with ours."""
    made = published(tmp_path / "rm", **SIZES) if form == "qwen25_math_rm" else classifier(tmp_path / "rm", **SIZES)[1]
    settings = replace(made, format=form, max_length=10_000, dtype="float32")
    problems = [{"problem_id": str(p), "question": question} for p, question in enumerate(QUESTIONS)]
    traces = [
        {"problem_id": str(p), "candidate": 0, "text": f"so we get {p}" + " then" * p, "eligible": True} for p in range(len(QUESTIONS))
    ]
    inputs = {
        "problems": artifact(tmp_path, "problems", problems=rows(PROBLEMS, problems, answer="1", solution="")),
        "traces": artifact(tmp_path, "candidates", candidates=rows(CANDIDATES, traces, **CANDIDATE)),
    }
    view = RewardView("rm", replace(settings, backend="vllm"), vllm)
    served = run_sharded(reward, view, inputs, context(tmp_path, "served"), "reward")
    own = run_sharded(reward, replace(view, reward=settings), inputs, context(tmp_path, "own"), "reward")
    scores = [made.table("scores")["score"].to_pylist() for made in (served, own)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3, abs=1e-3)
    assert len({round(score, 4) for score in scores[0]}) > 10
    assert not any(math.isnan(score) for score in scores[0])
    assert served.metrics["served"]["version"]
    assert RewardModel(settings, "rm").limit == 256
    assert load_reward_tokenizer(settings, "rm")
