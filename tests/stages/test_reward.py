"""The reward stage: scores per trace, traces that do not fit, gathering."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from qup.config.schema import LabReward, Reward, Vllm
from qup.config.views import RewardView
from qup.errors import InputError, Interrupted
from qup.records import CANDIDATES, PROBLEMS, SCORES, STREAM
from qup.scoring.formats import FORMATS
from qup.scoring.rewards import RewardModel, load_reward_tokenizer
from qup.stages import reward
from tests.helpers import fake_vllm
from tests.helpers.artifacts import CANDIDATE, artifact, context, rows, run_sharded
from tests.scoring.test_formats import classifier
from tests.scoring.test_pooling import last_token, server

IDS = [f"p{index}" for index in range(6)]
__all__ = ["server"]


def text(p, c):
    return f"so {p} + {c} = {p + c}" + " then" * (80 if (p, c) == (2, 1) else p)


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    _, made = classifier(tmp_path_factory.mktemp("rm"))
    return RewardView("tiny", Reward(**{**vars(made), "format": "skywork_v2", "max_length": 60, "shard_size": 4, "batch_tokens": 128}))


@pytest.fixture
def inputs(tmp_path):
    problems = [{"problem_id": name, "question": f"find {p} ?"} for p, name in enumerate(IDS)]
    candidates = [
        {"problem_id": name, "candidate": c, "text": text(p, c), "eligible": p != 1 or c == 0}
        for p, name in enumerate(IDS)
        for c in range(2)
    ]
    return {
        "problems": artifact(tmp_path, "problems", problems=rows(PROBLEMS, problems, answer="1", solution="")),
        "traces": artifact(tmp_path, "candidates", candidates=rows(CANDIDATES, candidates, **CANDIDATE)),
    }


def run(root, view, inputs, name="ctx"):
    return run_sharded(reward, view, inputs, context(root, name), "reward")


def test_each_eligible_candidate_is_scored_and_long_ones_are_counted(tmp_path, view, inputs):
    made = run(tmp_path, view, inputs)
    table = made.table("scores").to_pylist()
    assert made.table("scores").schema.equals(SCORES)
    assert [(entry["problem_id"], entry["candidate"]) for entry in table] == [
        (n, c) for p, n in enumerate(IDS) for c in range(2) if p != 1 or c == 0
    ]
    model, tokenizer = RewardModel(view.reward, "tiny"), load_reward_tokenizer(view.reward, "tiny")
    for entry in table:
        p, c = int(entry["problem_id"][1:]), entry["candidate"]
        ids = FORMATS["skywork_v2"].encode(tokenizer, f"find {p} ?", text(p, c))
        assert entry["n_tokens"] == len(ids)
        assert entry["fits"] == ((p, c) != (2, 1))
        assert math.isnan(entry["score"]) if not entry["fits"] else entry["score"] == pytest.approx(model.score([ids])[0], abs=1e-5)
    fitting = [entry["score"] for entry in table if entry["fits"]]
    assert made.metrics["mean"] == pytest.approx(sum(fitting) / len(fitting))
    assert (made.metrics["n"], made.metrics["n_fit"], made.metrics["n_unfit"]) == (11, 10, 1)


def test_a_streams_scores_are_gathered_from_its_pool(tmp_path, view, inputs, monkeypatch):
    pool = run(tmp_path, view, inputs)
    chosen = [
        {"pool": "student", "problem_id": name, "candidate": 0, "text": text(p, 0), "question": f"find {p} ?"} for p, name in enumerate(IDS)
    ]
    stream = artifact(
        tmp_path,
        "stream",
        stream=rows(STREAM, chosen, teacher="t", weight=1.0, turns=[], correct=True, status="ok", random_candidate="", n_eligible=1),
    )
    given = {"problems": inputs["problems"], "traces": stream}
    computed = run(tmp_path, view, given, "computed")
    monkeypatch.setattr(reward, "shard", None)
    gathered = run(tmp_path, view, given | {"pool.student": pool}, "gathered")
    assert gathered.metrics["n_gathered"] == len(IDS)
    assert {entry["pool"] for entry in gathered.table("scores").to_pylist()} == {"student"}
    for name in ("problem_id", "candidate", "pool", "fits"):
        assert gathered.table("scores")[name].equals(computed.table("scores")[name])
    assert gathered.metrics["mean"] == pytest.approx(computed.metrics["mean"], abs=1e-5)


def test_a_pooling_server_scores_the_same_token_ids(tmp_path, view, inputs, server):
    server["reply"] = last_token
    served = RewardView("tiny", Reward(**{**vars(view.reward), "backend": "vllm", "base_url": server["url"], "served_model": "org/rm"}))
    made = run(tmp_path, served, inputs)
    assert {entry["score"] for entry in made.table("scores").to_pylist() if entry["fits"]} == {6.0}
    tokenizer = load_reward_tokenizer(view.reward, "tiny")
    assert FORMATS["skywork_v2"].encode(tokenizer, "find 0 ?", text(0, 0)) in [ids for _, body in server["bodies"] for ids in body["input"]]


def test_a_server_of_our_own_is_started_asked_noted_and_stopped(tmp_path, view, inputs, monkeypatch):
    environment = fake_vllm.install(tmp_path / "venv", monkeypatch)
    served = replace(view, reward=replace(view.reward, backend="vllm"), vllm=Vllm(command=str(environment)))
    made = run(tmp_path, served, inputs)
    (start,) = fake_vllm.starts(environment)
    assert start["arguments"][1] == view.reward.path
    assert fake_vllm.flag(start, "runner") == "pooling"
    assert fake_vllm.gone(start["pid"])
    assert made.metrics["n_fit"] == 10, "its limit of 64 tokens is above ours of 60"
    assert made.metrics["served"]["version"] == "0.0.fake"


def test_the_labs_rules(tmp_path, inputs):
    steps = Reward(format="lab", lab=LabReward("steps"))
    table = run(tmp_path, RewardView("steps", steps), inputs).table("scores").to_pylist()
    assert all(entry["fits"] and 0 <= entry["score"] <= 1 for entry in table)


def test_a_kill_between_shards_gives_the_same_bytes(tmp_path, view, inputs):
    stops = iter([False, True])
    ctx = context(tmp_path, "killed", stopping=lambda: next(stops, False))
    with pytest.raises(Interrupted):
        run_sharded(reward, view, inputs, ctx, "reward")
    assert [ctx.has_shard(index) for index in range(3)] == [True, False, False]
    resumed = run_sharded(reward, view, inputs, ctx, "reward")
    assert resumed.file("scores.parquet").read_bytes() == run(tmp_path, view, inputs).file("scores.parquet").read_bytes()


@pytest.mark.parametrize(("gpus", "device", "spread"), [(2, "auto", True), (2, "cpu", False), (1, "auto", False)])
def test_several_gpus_share_one_model(view, monkeypatch, gpus, device, spread):
    from transformers import AutoModelForSequenceClassification

    given = {}

    def loads(place, **arguments):
        given.update(arguments)
        raise OSError("enough")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", loads)
    with pytest.raises(InputError, match="enough"):
        RewardModel(replace(view.reward, device=device), "tiny")
    assert given.get("device_map") == ("auto" if spread else None)
