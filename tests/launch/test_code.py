"""What the code of a stage is: what its module reaches by name, and nothing that changes no result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from qup.launch.code import ROOT, Code
from qup.pipeline import KINDS

FILES = {
    "__init__.py": "def open():\n    from toy.shown import show\n\n    return show()\n",
    "shown.py": "SEEN = []\nSEEN.append(1)\n\n\ndef show():\n    return SEEN\n",
    "stage.py": '"""Doc."""\nfrom toy.settings import Settings\nfrom toy.tools import used\nfrom toy import numbers\nimport toy.registered\nfrom toy.part import both\n\n\n'
    "def run(view: Settings):\n    return used(view) + numbers.ONE + both()\n",
    "tools.py": 'def used(view):\n    """Says."""\n    return inner() + len("toy.child")\n\n\n'
    "def inner():\n    # why\n    return 1\n\n\ndef unused():\n    return 2\n",
    "numbers.py": "ONE = 1\nTWO = 2\n",
    "part/__init__.py": "from toy.part import inner\n\n\ndef both():\n    return inner.value()\n",
    "part/inner.py": "def value():\n    return 4\n",
    "child.py": "def main():\n    return 7\n",
    "registered.py": "from toy.registry import register\n\n\n@register\ndef one():\n    return 1\n\n\ndef two():\n    return 2\n",
    "registry.py": "KNOWN = []\n\n\ndef register(function):\n    KNOWN.append(function)\n    return function\n",
    "settings.py": 'def opt(default, help):\n    return default\n\n\nclass Settings:\n    n: int = opt(1, "how many")\n\n\nclass Others:\n    m: int = 3\n',
}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    root = tmp_path / "toy"
    (root / "part").mkdir(parents=True)
    for name, text in FILES.items():
        (root / name).write_text(text, encoding="utf-8")
    return root


CHANGES = {
    "a comment": ("tools.py", "# why", "# because", False),
    "a docstring": ("tools.py", '"""Says."""', '"""Tells."""', False),
    "the layout": ("tools.py", "    return inner() + len", "    return (\n        inner()) + len", False),
    "what is not used of a module": ("tools.py", "return 2", "return 3", False),
    "another constant": ("numbers.py", "TWO = 2", "TWO = 3", False),
    "the help of a setting": ("settings.py", '"how many"', '"how many of them"', False),
    "the default of a setting, whose value is in the key": ("settings.py", "opt(1,", "opt(2,", False),
    "another group of settings": ("settings.py", "m: int = 3", "m: int = 4", False),
    "what the package gives to people": ("shown.py", "append(1)", "append(2)", False),
    "the stage": ("stage.py", "+ numbers.ONE", "- numbers.ONE", True),
    "a function called by a function": ("tools.py", "return 1", "return 2", True),
    "a module that its package imports": ("part/inner.py", "return 4", "return 5", True),
    "a constant": ("numbers.py", "ONE = 1", "ONE = 2", True),
    "a module that runs as a process of its own": ("child.py", "return 7", "return 8", True),
    "what registers itself on import": ("registered.py", "return 1", "return 5", True),
    "the registry": ("registry.py", "append(function)", "insert(0, function)", True),
}


@pytest.mark.parametrize("name", CHANGES)
def test_just_what_is_reached_counts(toy: Path, name: str) -> None:
    file, old, new, counts = CHANGES[name]
    before = Code(toy).digest("toy.stage")
    text = (toy / file).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (toy / file).write_text(text.replace(old, new), encoding="utf-8")
    assert (Code(toy).digest("toy.stage") != before) is counts


def test_what_was_read_is_remembered_by_the_bytes_of_a_file(toy: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    before = Code(toy, cache).digest("toy.stage")
    known = json.loads(cache.read_text(encoding="utf-8"))
    assert Code(toy, cache).digest("toy.stage") == before
    (toy / "numbers.py").write_text("ONE = 5\n", encoding="utf-8")
    assert Code(toy, cache).digest("toy.stage") != before
    assert len(json.loads(cache.read_text(encoding="utf-8"))) == len(known) + 1
    cache.write_text("{torn", encoding="utf-8")
    (toy / "numbers.py").write_text(FILES["numbers.py"], encoding="utf-8")
    assert Code(toy, cache).digest("toy.stage") == before


@pytest.mark.parametrize(
    "kind, within, without",
    [
        (
            "train",
            {"qup.training.worker:main", "qup.training.losses:ChunkedLoss", "qup.training.packing:pack"},
            {"qup.answers.extraction:extract"},
        ),
        ("responses", {"qup.generation.schedule:Schedule"}, {"qup.training.losses:ChunkedLoss", "qup.answers.extraction:extract"}),
        ("evaluate", {"qup.answers.verifier:Verifier"}, {"qup.generation.schedule:Schedule", "qup.training.losses:ChunkedLoss"}),
        ("stream", {"qup.selection:select"}, {"qup.config.schema.oracle:Oracle", "qup.training.losses:ChunkedLoss"}),
    ],
)
def test_real_stages_reach_what_they_run(kind: str, within: set[str], without: set[str]) -> None:
    reached = {entry.split(" ")[0] for entry in Code().reached(KINDS[kind].module)}
    assert within <= reached
    assert not without & reached


def test_a_help_text_flags_no_stage(tmp_path: Path) -> None:
    root = tmp_path / "qup"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))

    def digests() -> dict[str, str]:
        code = Code(root)
        return {kind.name: code.digest(kind.module) for kind in KINDS.values()}

    before = digests()
    for path in (root / "config" / "schema").glob("*.py"):
        path.write_text(path.read_text(encoding="utf-8").replace("the student's", "the students'"), encoding="utf-8")
    assert digests() == before
