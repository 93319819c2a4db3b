"""Students' tokenizers are tried before anything runs; stages are recordings."""

import json
from dataclasses import replace
from types import SimpleNamespace

from qup.config.schema import Model
from qup.errors import InputError
from qup.launch.preflight.tokenizers import tokenizer_faults_of
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


def test_a_hub_that_told_no_commit_is_not_asked_for_a_tokenizer(monkeypatch):
    """Each name took a minute of retries, and a dry run is offline by right."""
    import torch  # noqa: F401  # so that the tokenizer is looked for in this process, where the asking is seen

    asked = []

    def load(model, **options):
        asked.append(options)
        raise InputError("no tokenizer")

    monkeypatch.setattr("qup.models.probe.load_tokenizer", load)

    def faults(content, download):
        view = SimpleNamespace(model=Model(name="mine", path="org/name", content=content))
        return tokenizer_faults_of(SimpleNamespace(to_run={1: SimpleNamespace(node=SimpleNamespace(view=view))}), download=download)

    assert faults(None, True) == faults("a" * 40, False) == []
    assert not asked
    assert faults("a" * 40, True) == []
    assert asked == [{"downloaded": False}]
