"""A setting that nothing reads is a bug."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from qup.config import schema

QUP = Path(schema.__file__).resolve().parents[1]

CONFIG_READS = {
    "Stream.source": "settle",
    "Stream.refinement": "settle",
    "Study.grids": "sweeps",
    "Study.seed": "settle",
    "Config.seed": "settle",
}
"""What the configuration itself uses up, and the file of qup/config that does."""


def _classes() -> list[type]:
    return [cls for cls in vars(schema).values() if dataclasses.is_dataclass(cls) and isinstance(cls, type)]


def _reads(text: str, name: str) -> bool:
    return re.search(rf"\.{name}\b|['\"]{name}['\"]", text) is not None


def test_every_setting_is_read_outside_of_the_configuration() -> None:
    files = [path for path in QUP.rglob("*.py") if QUP / "config" not in path.parents]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    fields = [(cls.__name__, field.name) for cls in _classes() for field in dataclasses.fields(cls)]
    assert len(files) > 50
    assert len(fields) > 180
    unread = [f"{cls}.{name}" for cls, name in fields if f"{cls}.{name}" not in CONFIG_READS and not _reads(code, name)]
    assert unread == []


def test_what_the_configuration_uses_up_is_read_where_it_says() -> None:
    for key, module in CONFIG_READS.items():
        text = (QUP / "config" / f"{module}.py").read_text(encoding="utf-8")
        assert _reads(text, key.partition(".")[2]), key
