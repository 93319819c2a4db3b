"""Plain forms, digests, and the way back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from qup.config import views
from qup.config.fingerprint import build, digest, fields, plain
from qup.config.schema import Alignment, Config, LabReward, Lora, Reward
from qup.errors import ConfigError


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(plain(value)))


@pytest.mark.parametrize(
    "value",
    [
        Config(),
        Config(reward={"a": Reward(lab=LabReward()), "b": Reward(path="x/y")}),
        replace(Config(), trainer=replace(Config().trainer, micro_batch=4, lora=Lora(), evaluate_at=[0.5])),
    ],
)
def test_a_cell_survives_a_job_file(value: Config) -> None:
    assert build(Config, _through_json(value)) == value


def test_views_survive_a_job_file() -> None:
    cell = Config()
    for value in (
        views.AlignedView(Alignment(), ("a", "b")),
        views.TrainView(cell.model, cell.trainer, cell.zero, cell.tracking, {"study": "x"}, 8),
        views.RewardView("r", Reward(lab=LabReward())),
        views.CandidatesView(cell.source, cell.refinement, cell.oracle, 1, "dft", 5.0, cell.model, max_usd=3.0),
    ):
        back = build(type(value), _through_json(value))
        assert back == value
        assert type(back) is type(value)


def test_runtime_settings_leave_the_digest_alone_and_others_change_it() -> None:
    cell = Config()
    view = views.TrainView(cell.model, cell.trainer, cell.zero, cell.tracking)
    same = replace(
        view,
        zero=replace(cell.zero, stage=3),
        model=replace(cell.model, path="elsewhere", device="cpu"),
        trainer=replace(cell.trainer, checkpoint_minutes=1.0),
        labels={"study": "other"},
    )
    assert digest(fields(view)) == digest(fields(same))
    for other in (
        replace(view, trainer=replace(cell.trainer, lr=1e-3)),
        replace(view, model=replace(cell.model, content="abc")),
        replace(view, world_size=8),
    ):
        assert digest(fields(view)) != digest(fields(other))


def test_digests_do_not_depend_on_the_order_of_a_mapping() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest([1, 2]) != digest([2, 1])


def test_digest_is_stable() -> None:
    assert digest({"b": [1, 2.5, None, True], "a": "é"}) == "0b8cc543e984d4d7398f5f603a4b91d358a2565f1d6b6a058565d662854e37cf"


def test_digest_refuses_a_number_that_is_none() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"a": float("nan")})


def test_a_whole_number_becomes_a_float_where_one_is_meant() -> None:
    built = build(Config, {"trainer": {"lr": 1, "batch_size": 8}})
    assert built.trainer.lr == 1.0
    assert isinstance(built.trainer.lr, float)


def test_all_faults_are_named_with_their_keys() -> None:
    wrong = {"trainer": {"lrr": 1, "lr": "x", "epochs": True, "betas": [0.9, "b"]}, "reward": {"a": 3}}
    with pytest.raises(ConfigError) as caught:
        build(Config, wrong)
    assert {fault.key for fault in caught.value.faults} == {"trainer.lrr", "trainer.lr", "trainer.epochs", "trainer.betas[1]", "reward.a"}


def test_a_required_field_is_demanded() -> None:
    with pytest.raises(ConfigError, match="lab=None: is required"):
        build(views.StudentView, {})


@dataclass(frozen=True)
class _Hidden:
    shown: int = 1
    hidden: int = field(default=2, metadata={"runtime": True})


def test_fields_hides_runtime_at_every_depth_and_plain_hides_nothing() -> None:
    nested = {"a": [_Hidden()], "b": (_Hidden(),)}
    assert fields(nested) == {"a": [{"shown": 1}], "b": [{"shown": 1}]}
    assert plain(nested) == {"a": [{"shown": 1, "hidden": 2}], "b": [{"shown": 1, "hidden": 2}]}
