"""Which setting enters which stage's key, tried on cells: each setting is changed by itself, and the views are compared.

`python -m tests.helpers.key_table` writes the table in docs/stages-and-keys.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qup.config.compose import Composer
from qup.config.fingerprint import digest, fields
from qup.config.schema import Config, LabReward, Lora
from qup.pipeline import KINDS, build_graph

PAGE = Path(__file__).resolve().parents[2] / "docs" / "stages-and-keys.md"
BEGIN, END = "<!-- keys -->\n", "<!-- end of keys -->\n"
HUB = [
    "problems=numina_cot",
    "model=qwen2_5_math_1_5b",
    "evaluation=avg16",
    "oracle=openai",
    "judge=openai",
    "reward=[qwen2_5_math_rm_72b]",
]
CELLS = (
    ["stream=slm_rft", "trainer.dropout=0.1"],
    ["stream=oracle_refined", "selection=joint", "selection.reward=lab_steps", "reward=[lab_outcome,lab_steps]", "study.seed=3"],
    ["stream=oracle_refined", "selection=rank_surprisal", "judge=lab"],
    ["refinement=refine", "refinement.tries=2", "refinement.accept=joint", "refinement.reward=lab_steps", "reward=[lab_outcome,lab_steps]"],
    ["source=oracle", "source.samples=4", "selection=random", "selection.keep=2", "oracle=lab"],
    ["source=file", "source.path=traces.jsonl", "selection=random"],
    ["source=cooperative", "oracle=lab"],
    [*HUB, "stream=oracle_refined", "lora=r16", "trainer.normalisation=micro_batch", "trainer.packing=false", "trainer.micro_batch=4"],
    ["measure=[lalp,grace]", "stream=slm_rft"],
    *(
        [
            "source=oracle",
            "source.samples=4",
            "oracle=lab",
            "selection=measure",
            f"selection.measure={name}",
            f"measure=[{name}]",
            "reward=[lab_outcome,lab_steps]",
        ]
        for name in ("aslec_casl", "lark", "scas", "car", "length")
    ),
)
"""Cells that together read every setting."""
BY_NAME = {
    "teacher": "the entries are in the key",
    "model.lab": "the entries are in the key",
}
"""Settings that choose among others, which are in keys."""
OTHERWISE = {
    "stream": "names a source and a refinement, which are in keys",
    "seed": "sets the trainer's and the evaluation's seeds, which are in keys",
    "verdict": "read by the report",
    "cluster": "where and with what a stage runs; the ranks of `cluster.train` enter `train` with dropout, or where `trainer.normalisation` is not `global`",
    "study": "how the grid is launched; `study.seed` sets seeds, which are in keys",
    "store": "where artifacts lie and what is kept",
    "tracking": "shows runs to people",
    "zero": "moves memory about: rounding",
    "vllm": "how a server is started: rounding",
}
"""Sections of which nothing enters a key by itself, and why."""


def other(value: Any, name: str, metadata: Any) -> Any:
    """Another value of a setting, sound enough to hash."""
    choices = [choice for choice in metadata.get("choices") or () if choice != value]
    if choices:
        return choices[-1]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if name == "reward" and not isinstance(value, dict):
        return "lab_outcome" if value == "lab_steps" else "lab_steps"
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [*value, 0.5]
    if isinstance(value, dict):
        return {**value, "x": "x"}
    return Lora() if name == "lora" else LabReward() if name == "lab" else 1


def changes(value: Any, at: str = "") -> Iterator[tuple[str, Any, bool]]:
    """(dotted setting, the section with it changed, whether it or a section above it is runtime); entries of mappings are `*`."""
    for field in dataclasses.fields(value):
        inner, runtime = getattr(value, field.name), bool(field.metadata.get("runtime"))
        name = f"{at}.{field.name}" if at else field.name
        if dataclasses.is_dataclass(inner):
            for below, changed, also in changes(inner, name):
                yield below, dataclasses.replace(value, **{field.name: changed}), runtime or also
        elif isinstance(inner, dict) and any(dataclasses.is_dataclass(one) for one in inner.values()):
            for key, one in inner.items():
                for below, changed, also in changes(one, f"{name}.*"):
                    yield below, dataclasses.replace(value, **{field.name: {**inner, key: changed}}), runtime or also
        else:
            yield name, dataclasses.replace(value, **{field.name: other(inner, field.name, field.metadata)}), runtime


def own_keys(cell: Config) -> dict[str, set[str]]:
    """Kind → digests of the views of a cell's stages, whatever their inputs."""
    found: dict[str, set[str]] = {}
    for ref, node in build_graph([cell]).nodes.items():
        view = {
            field.name: fields(getattr(node.view, field.name))
            for field in dataclasses.fields(node.view)
            if not field.metadata.get("runtime")
        }
        found.setdefault(ref.kind, set()).add(digest(view))
    return found


def keys_by_setting(composer: Composer) -> dict[str, tuple[bool, set[str]]]:
    """Setting → whether it is runtime, and the kinds whose own key it changes in one of the cells."""
    found: dict[str, tuple[bool, set[str]]] = {}
    for overrides in CELLS:
        cell = composer.cell(overrides)
        before = own_keys(cell)
        for name, changed, runtime in changes(cell):
            known = found.setdefault(name, (runtime, set()))[1]
            try:
                after = own_keys(changed)
            except (KeyError, ValueError, AttributeError, IndexError):
                continue
            known |= {kind for kind in before.keys() & after.keys() if before[kind] != after[kind]}
    return found


def table(found: dict[str, tuple[bool, set[str]]]) -> str:
    """The table, a line for settings of one section that enter the same keys."""
    lines: dict[tuple[str, tuple[str, ...], bool], list[str]] = {}
    for name, (runtime, kinds) in found.items():
        section, _, rest = name.partition(".")
        lines.setdefault((section, tuple(kind for kind in KINDS if kind in kinds), runtime), []).append(rest or section)
    made = ["| section | settings | in the key of |", "|---|---|---|"]
    for (section, kinds, _runtime), names in lines.items():
        if section not in OTHERWISE or kinds:
            told = ", ".join(f"`{kind}`" for kind in kinds) or "none"
            made.append(f"| `{section}` | {', '.join(f'`{name}`' for name in dict.fromkeys(names))} | {told} |")
    made += [f"| `{section}` | all others | none: {why} |" for section, why in OTHERWISE.items()]
    return "\n".join(made) + "\n"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + BEGIN + table(keys_by_setting(Composer.over())) + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
