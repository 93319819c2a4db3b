"""Keys that stages will look for in the environment, looked for before anything is spent; stages are recordings."""

from dataclasses import replace

import pytest

from qup.config.schema import Oracle, Resources
from qup.launch.plan import make_plan
from qup.launch.preflight.credentials import missing_keys
from tests.helpers.cells import cell
from tests.helpers.overlay import Overlay

OPENAI = Oracle(name="gpt", backend="openai", model="gpt", seed=0, api_key_env="QUP_TEST_ORACLE_KEY")


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in ("QUP_TEST_ORACLE_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def missing(tmp_path, where="local", stream="oracle_refined", **changes):
    made = cell(stream, **changes)
    made = replace(made, store=replace(made.store, dir=str(tmp_path / "store")))
    return [fault.key for fault in missing_keys(make_plan([made], tmp_path / "study"), where)]


def test_a_launch_without_the_oracles_key_is_refused_before_anything_runs(tmp_path):
    overlay = Overlay(tmp_path)
    cells = [cell("slm_rft", oracle=OPENAI, judge=OPENAI), cell("oracle_refined", oracle=OPENAI, judge=OPENAI)]
    dry = [replace(one, study=replace(one.study, dry_run=True)) for one in cells]
    status, out = overlay.launch(dry)
    assert status == 0 and "would be refused: oracle.api_key_env='QUP_TEST_ORACLE_KEY'" in out, out
    status, out = overlay.launch(cells)
    assert status == 1
    assert "oracle.api_key_env='QUP_TEST_ORACLE_KEY': this environment variable holds no key for https://api.openai.com/v1" in out
    assert "judge.api_key_env='QUP_TEST_ORACLE_KEY'" in out
    assert "Traceback" not in out
    assert not overlay.runs()
    assert not (overlay.store / "studies" / "test").exists(), "a refused launch takes no name"


def test_stored_stages_need_no_key(tmp_path):
    overlay = Overlay(tmp_path)
    cells = [cell("oracle_refined", oracle=OPENAI, judge=OPENAI)]
    overlay.env["QUP_TEST_ORACLE_KEY"] = "a key"
    status, out = overlay.launch(cells)
    assert status == 0, out
    del overlay.env["QUP_TEST_ORACLE_KEY"]
    more = [replace(one, study=replace(one.study, name="more"), trainer=replace(one.trainer, lr=0.5)) for one in cells]
    status, out = overlay.launch(more)
    assert status == 0, out


def test_a_retry_without_the_key_is_refused_as_well(tmp_path):
    overlay = Overlay(tmp_path)
    overlay.env["QUP_TEST_ORACLE_KEY"] = "a key"
    overlay.order("candidates", **{"raise": "the endpoint is down"})
    assert overlay.launch([cell("oracle_refined", oracle=OPENAI)])[0] == 1
    before = len(overlay.runs())
    del overlay.env["QUP_TEST_ORACLE_KEY"]
    status, out = overlay.qup("retry", "test")
    assert status == 1 and "oracle.api_key_env='QUP_TEST_ORACLE_KEY'" in out, out
    assert len(overlay.runs()) == before


def test_only_what_asks_an_endpoint_of_others_needs_one(tmp_path, monkeypatch):
    assert missing(tmp_path) == []
    assert missing(tmp_path, oracle=OPENAI) == ["oracle.api_key_env"]
    assert missing(tmp_path, stream="slm_rft", oracle=OPENAI) == []
    own = replace(OPENAI, base_url="http://localhost:8000/v1")
    assert missing(tmp_path, oracle=replace(own, api_key_env="OPENAI_API_KEY")) == []
    assert missing(tmp_path, oracle=own) == ["oracle.api_key_env"], "a variable that is named is meant"
    assert missing(tmp_path, oracle=replace(own, backend="vllm")) == ["oracle.api_key_env"]
    assert missing(tmp_path, oracle=replace(OPENAI, backend="vllm", model="org/m")) == [], "the stage serves it itself"
    several = {"lab": cell().oracle, "gpt": OPENAI}
    assert missing(tmp_path, stream="oracle_synthesized", teacher=several) == ["teacher.gpt.api_key_env"]
    monkeypatch.setenv("QUP_TEST_ORACLE_KEY", "a key")
    assert missing(tmp_path, oracle=OPENAI) == []


def test_endpoints_that_sample_are_looked_at_too(tmp_path):
    plain = cell()
    sampling = replace(
        plain.rollouts.sampling, backend="openai", base_url="https://api.openai.com/v1/", served_model="m", api_key_env="OPENAI_API_KEY"
    )
    assert missing(tmp_path, stream="slm_rft", rollouts=replace(plain.rollouts, sampling=sampling)) == ["rollouts.sampling.api_key_env"]
    evaluation = replace(plain.evaluation, sampling=sampling)
    assert missing(tmp_path, stream="base", evaluation=evaluation) == ["evaluation.sampling.api_key_env"]


def test_a_job_may_get_its_key_from_its_own_shell_lines(tmp_path):
    def cluster(**changes):
        asked = Resources(setup=["export QUP_TEST_ORACLE_KEY=$(cat ~/key)"], **changes)
        return replace(cell().cluster, oracle=asked)

    assert missing(tmp_path, "slurm", oracle=OPENAI) == ["oracle.api_key_env"]
    assert missing(tmp_path, "slurm", oracle=OPENAI, cluster=cluster()) == []
    assert missing(tmp_path, "slurm", oracle=OPENAI, cluster=cluster(where="here")) == ["oracle.api_key_env"]
    assert missing(tmp_path, "local", oracle=OPENAI, cluster=cluster()) == ["oracle.api_key_env"]
