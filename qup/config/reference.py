"""docs/config.md, made from the schema's metadata and the files of conf/.

python -m qup.config.reference            writes it
python -m qup.config.reference --check    exit status 1 where it is out of date
"""

from __future__ import annotations

import dataclasses
import re
import sys
import typing
from collections import Counter
from pathlib import Path
from typing import Any

from qup.config.fingerprint import describe, hints, plain
from qup.config.keys import bare, range_in_words
from qup.config.schema import Config, Resources

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "config.md"
HEAD = """# Configuration

Made by `python -m qup.config.reference` from `qup/config/schema/` and `conf/`; change those.

`group=choice` takes a file of `conf/group/`, `key=value` sets one setting, `+key=value` adds an entry to a mapping,
`~key` takes one out. With `-m`, `key=a,b` and `key=range(0,3)` run one cell for each value. Settings marked
*runtime* change where or how fast a result is computed and not the result: they are in no stage's key.

Files of your own are read beside these where they lie in a folder `conf/` where you launch, or in the one that
`--config-dir` names; none may have the name of one of these. What an experiment changes of a choice (a benchmark made
smaller, another size of a student) goes when another choice of that group is made.

A fault in the configuration is refused before anything runs, all faults of a grid together.
"""


def page(conf: Path = ROOT / "conf") -> str:
    groups, sections = _groups(conf), _sections()
    return "\n".join([HEAD, _contents([groups, sections]), groups, sections])


def _contents(parts: list[str]) -> str:
    """A line for each part: links to its headings, by the anchors that a repeated heading gets a number in."""
    lines, seen = [], Counter[str]()
    for part in parts:
        links = []
        for level, _, name in (line.partition(" ") for line in part.splitlines() if line.startswith("#")):
            anchor = re.sub(r"[^\w-]", "", name.lower().replace(" ", "-"))
            number = f"-{seen[anchor]}" if seen[anchor] else ""
            seen[anchor] += 1
            links.append(f"**[{name}](#{anchor}{number})**:" if level == "##" else f"[{name}](#{anchor}{number})")
        lines += [" ".join(links), ""]
    return "\n".join(lines)


def _groups(conf: Path) -> str:
    lines = ["## Groups", ""]
    folders = sorted({path.parent for path in conf.rglob("*.yaml") if path.parent != conf and conf / "hydra" not in path.parents})
    for folder in [*folders, conf / "hydra" / "launcher"]:
        lines += [f"### {folder.relative_to(conf).as_posix()}", "", "| choice | |", "|---|---|"]
        for path in sorted(folder.glob("*.yaml")):
            lines.append(f"| `{path.stem}` | {_cell(first_comment(path))} |")
        lines.append("")
    return "\n".join(lines)


def first_comment(path: Path) -> str:
    """The first sentence of the comment that a file of conf/ begins with; '' where it has none."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("# ").strip()
        if text.startswith("@package"):
            continue
        if not text and words:
            break
        words.append(text)
    text = " ".join(words)
    head, stop, _ = text.partition(". ")
    return head + ("." if stop else "")


def _sections() -> str:
    lines = ["## Settings", ""]
    for field in dataclasses.fields(Config):
        kind = hints(Config)[field.name]
        lines += [f"### {field.name}", "", f"{field.metadata['help'].capitalize()}.", ""]
        lines += ["| key | type | default | valid | |", "|---|---|---|---|---|"]
        lines += [*_rows(field.name, field, kind, runtime=False), ""]
        if field.name == "cluster":
            lines += ["What each of these stages asks for:", "", "| key | type | default | valid | |", "|---|---|---|---|---|"]
            for below in dataclasses.fields(Resources):
                lines += _rows(f"cluster.*.{below.name}", below, hints(Resources)[below.name], runtime=True)
            lines.append("")
    return "\n".join(lines)


def _rows(key: str, field: Any, kind: Any, *, runtime: bool) -> list[str]:
    """A setting's line, and the lines of what lies below it."""
    runtime = runtime or field.metadata["runtime"]
    inner, prefix = bare(kind), key
    if typing.get_origin(inner) is dict:
        inner, prefix = bare(typing.get_args(inner)[1]), f"{key}.*"
    nested = dataclasses.is_dataclass(inner)
    section = dataclasses.is_dataclass(kind)
    if inner is Resources:
        return [f"| `{key}.*` | resources, as below |  |  | {field.metadata['help']} |"]
    rows = [] if section else [_row(key, field, kind, runtime=runtime)]
    if nested:
        cls = typing.cast(type, inner)
        for below in dataclasses.fields(cls):
            rows += _rows(f"{prefix}.{below.name}", below, hints(cls)[below.name], runtime=runtime)
    return rows


def _row(key: str, field: Any, kind: Any, *, runtime: bool) -> str:
    metadata = field.metadata
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    choices = metadata.get("choices")
    valid = ", ".join(f"`{choice}`" for choice in choices if choice != "") if choices else ""
    valid = valid or range_in_words(metadata.get("above"), metadata.get("at_least"), metadata.get("at_most"))
    text = metadata["help"] + (" *(runtime)*" if runtime else "")
    shown = "" if default is None or default == "" else f"`{_yaml(plain(default))}`"
    return f"| `{key}` | {_cell(describe(kind))} | {shown} | {valid} | {_cell(text)} |"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Writes the page, or with --check compares it."""
    made = page()
    if "--check" in arguments:
        current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        if current == made:
            return 0
        print("docs/config.md is out of date: python -m qup.config.reference", file=sys.stderr)
        return 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
