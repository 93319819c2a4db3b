"""Students' tokenizers are tried before anything runs; stages are recordings."""

import json
from dataclasses import replace

from qup.config.schema import Model
from tests.helpers.cells import cell
from tests.helpers.families import family_model
from tests.helpers.overlay import Overlay


def test_a_student_whose_template_never_writes_a_stop_token_is_refused_before_anything_runs(tmp_path):
    folder = family_model(tmp_path / "student", "qwen")
    model = Model(name="mine", path=str(folder), template="qwen_boxed")
    overlay = Overlay(tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | {"chat_template": "{% for m in messages %}{{ m.content }}\n{% endfor %}"})
    )
    cells = [cell("slm_rft", model=model)]
    status, out = overlay.launch([replace(one, study=replace(one.study, dry_run=True)) for one in cells])
    assert status == 0 and "would be refused: model.path=" in out, out
    status, out = overlay.launch(cells)
    assert status == 1 and "which holds no special token" in out and "Traceback" not in out, out
    assert not overlay.runs()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert overlay.launch(cells)[0] == 0
