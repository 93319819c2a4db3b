"""`--cfg job` shows the cell that would run."""

from __future__ import annotations

import pytest
import yaml

from qup.config.fingerprint import plain
from tests.helpers.entry import FakeStudy, main


@pytest.mark.parametrize("command", ["", "experiment=lab_small reward=[lab_steps] trainer=dft seed=3"])
def test_the_configuration_that_is_shown_is_that_of_the_cell_that_runs(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Hydra's own would still hold the reward model and the benchmarks that the experiment changed and that are not chosen."""
    command += " study.name=shown"
    assert main(monkeypatch, command) == 0
    (cell,) = study.calls[0][0]
    capsys.readouterr()
    assert main(monkeypatch, f"{command} --cfg job") == 0
    assert yaml.safe_load(capsys.readouterr().out) == plain(cell)
    assert main(monkeypatch, f"{command} --cfg job --package evaluation.sampling") == 0
    assert yaml.safe_load(capsys.readouterr().out) == plain(cell.evaluation.sampling)


def test_a_part_of_the_configuration_that_is_not_there_is_refused(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(monkeypatch, "--cfg job --package trainr") == 2
    assert "--package='trainr': did you mean trainer?" in capsys.readouterr().err
