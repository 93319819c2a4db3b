"""A grid run small first, and what is told of it; stages are recordings."""

from dataclasses import replace

from tests.helpers.cells import cell
from tests.helpers.overlay import Overlay


def test_the_study_starts_once_its_rehearsal_has_run(tmp_path):
    overlay = Overlay(tmp_path)
    cells = [replace(one, study=replace(one.study, rehearse=4)) for one in (cell("slm_rft"), cell("base"))]
    status, out = overlay.launch(cells)
    assert status == 0 and out.index("rehearsal on 4 problems first") < out.index("test-rehearsal") < out.rindex("stages ran"), out
    studies = sorted(path.name for path in (overlay.store / "studies").iterdir())
    assert len(studies) == 2 and studies[1] == f"{studies[0]}-rehearsal"


def test_a_failed_rehearsal_starts_nothing(tmp_path):
    overlay = Overlay(tmp_path)
    overlay.order("rollouts", **{"raise": "no room"})
    status, out = overlay.launch([replace(one, study=replace(one.study, rehearse=4)) for one in [cell("slm_rft")]])
    assert status == 1 and "the rehearsal failed, so the study was not started" in out
    assert [path.name for path in (overlay.store / "studies").iterdir() if not path.name.endswith("-rehearsal")] == []
