"""What a plan takes from earlier stages of the store."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

from qup.config.fingerprint import fields
from qup.config.schema import Model, Oracle, Refinement, Sampling, Source
from qup.config.views import CandidatesView, RolloutsView
from qup.launch.rates import Rates

VIEW = RolloutsView(Model(path="m", content="abc"), Sampling())


def manifest(root: Path, kind: str, name: str, view: Any, **facts: Any) -> None:
    folder = root / kind / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"fields": fields(view), "units": 64, "metrics": {}, **facts}))


def test_start_up_is_no_part_of_a_unit_s_time(tmp_path: Path) -> None:
    manifest(tmp_path, "rollouts", "a", VIEW, seconds=100.0, startup_s=36.0)
    found = Rates(tmp_path).of("rollouts", VIEW)
    assert found is not None and (found.startup_s, found.unit_s) == (36.0, 1.0)


def test_a_run_that_told_no_start_up_and_was_short_tells_no_rate(tmp_path: Path) -> None:
    """Two seconds for 64 units are a process that starts and reads tables: a thousand times as many take no half hour."""
    manifest(tmp_path, "rollouts", "a", VIEW, seconds=2.0, startup_s=None)
    found = Rates(tmp_path).of("rollouts", VIEW)
    assert found is not None and (found.startup_s, found.unit_s) == (2.0, None)
    manifest(tmp_path, "rollouts", "b", VIEW, units=1000, seconds=2010.0, startup_s=None)
    found = Rates(tmp_path).of("rollouts", VIEW)
    assert found is not None and (found.startup_s, found.unit_s) == (10.0, 2.0)


def test_what_ran_on_this_machine_counts_before_what_ran_elsewhere(tmp_path: Path) -> None:
    for name in "abc":
        manifest(tmp_path, "rollouts", name, VIEW, seconds=100.0, startup_s=36.0, host="another")
    elsewhere = Rates(tmp_path).of("rollouts", VIEW)
    assert elsewhere is not None and elsewhere.unit_s == 1.0
    manifest(tmp_path, "rollouts", "here", VIEW, seconds=228.0, startup_s=36.0, host=platform.node())
    here = Rates(tmp_path).of("rollouts", VIEW)
    assert here is not None and here.unit_s == 3.0


def test_another_model_tells_nothing(tmp_path: Path) -> None:
    manifest(tmp_path, "rollouts", "a", replace(VIEW, model=Model(path="m", content="other")), seconds=100.0)
    assert Rates(tmp_path).of("rollouts", VIEW) is None


def test_a_rehearsal_says_little_beside_a_whole_run(tmp_path: Path) -> None:
    for name in "abc":
        manifest(tmp_path, "rollouts", name, VIEW, seconds=645.0, startup_s=5.0)
    manifest(tmp_path, "rollouts", "whole", VIEW, units=6400, seconds=645.0, startup_s=5.0)
    found = Rates(tmp_path).of("rollouts", VIEW)
    assert found is not None and found.unit_s == 0.1


def test_tokens_are_those_of_the_same_orders_to_the_same_oracle(tmp_path: Path) -> None:
    oracle = Oracle(name="gpt", backend="openai", model="gpt")
    view = CandidatesView(Source(name="student"), Refinement(name="refine"), oracle, 0, "dft", 5.0, Model(content="abc"))
    manifest(tmp_path, "candidates", "a", view, seconds=1.0, metrics={"input_tokens": 6400, "output_tokens": 3200})
    other = replace(view, refinement=Refinement(name="style_aligned"))
    manifest(tmp_path, "candidates", "b", other, seconds=1.0, metrics={"input_tokens": 64, "output_tokens": 64})
    found = Rates(tmp_path).of("candidates", view)
    assert found is not None and (found.input_tokens, found.output_tokens) == (100.0, 50.0)
