"""What was run: students, data, arms, training, evaluation, seeds, versions, as the cells and manifests say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from qup.analysis.findings.numbers import joined, plain
from qup.analysis.results.arms import Run, brief
from qup.analysis.results.shelf import Shelf
from qup.analysis.results.streams import number
from qup.store import Artifact
from qup.study import Cell, Study

PACKAGES = ("python", "torch", "transformers", "deepspeed", "vllm")
"""Versions worth a place in the block; manifests have the others."""
_SOURCES = {
    "student": "the student's own verified rollouts",
    "oracle": "solutions that the Oracle{oracle} wrote from scratch",
    "dataset": "the data set's own solutions",
    "file": "traces from the file {path}",
}
_REFINEMENTS = {
    "refine": ", each repaired by the Oracle{oracle}",
    "style_aligned": ", each repaired by the Oracle{oracle} in the student's own style",
}


@dataclass(frozen=True)
class Line:
    name: str
    told: tuple[str, ...]


def setup(study: Study, runs: Sequence[Run], used: Iterable[Artifact], shelf: Shelf) -> list[Line]:
    """The block's lines; a setting that the study varies is given with all its values."""
    cells = [run.cell for run in runs]
    trained = [cell for cell in cells if not cell.is_base]
    made = [
        Line("Students", tuple(_each(runs, lambda run: run.student, _student))),
        Line("Problems", tuple(_problems(runs, shelf))),
        Line("Arms", tuple(_each([run for run in runs if not run.cell.is_base], lambda run: run.arm.label, _arm))),
        Line("Rollouts", _one(_sampling(trained, "rollouts.sampling", "rollouts a problem"))),
        Line("Training", _one(_training(trained))),
        Line("Reward models", tuple(dict.fromkeys(line for cell in trained for line in _rewards(cell)))),
        Line("Evaluation", _one(_evaluation(cells, shelf))),
        Line("Seeds", _one(_seeds(cells, trained))),
        Line("Run", _one(_versions(study, list(used)))),
    ]
    return [line for line in made if line.told]


def _one(told: str) -> tuple[str, ...]:
    return (told,) if told else ()


def _each(runs: Sequence[Run], name: Callable[[Run], str], said: Callable[[Run], str]) -> list[str]:
    return list(dict.fromkeys(f"{name(run)}: {said(run)}" for run in runs))


def values(cells: Iterable[Cell], path: str) -> list[Any]:
    """The different values of a setting, in the study's order."""
    seen = {json.dumps(cell.get(path), sort_keys=True, default=str): cell.get(path) for cell in cells}
    return list(seen.values())


def _varied(cells: Sequence[Cell], path: str, none: str = "") -> str:
    """A setting's value; all of them with `or`, where it varies."""
    return " or ".join(none if one is None else brief(one) for one in values(cells, path))


def _student(run: Run) -> str:
    get = run.cell.get
    if get("model.lab") is not None:
        where = f"pretrained in the lab, exposure {100 * number(get('model.lab.exposure')):g} %"
    else:
        where = _located(get("model.path"), get("model.revision"), get("model.content"))
    return f"{where}, {get('model.dtype')}, template {get('model.template')}"


def _located(path: Any, revision: Any, content: Any) -> str:
    """A path or hub name with what fixes its content: the commit asked for, or the digest found at planning."""
    fixed = str(revision or content or "")
    return f"{path}{f' at {fixed[:12]}' if fixed else ''}"


def _problems(runs: Sequence[Run], shelf: Shelf) -> list[str]:
    """Each problem set, and under it how many of its problems each student solved and every arm has."""
    made: dict[str, dict[str, None]] = {}
    for run in runs:
        get = run.cell.get
        where = [] if get("problems.lab") else [_located(get("problems.path"), get("problems.revision"), get("problems.content"))]
        where += [f"subset {get('problems.subset')}"] if get("problems.subset") else []
        where += [f"split {get('problems.split')}"] if where else []
        name = str(get("problems.name"))
        counts = made.setdefault(f"{name} ({', '.join(where)})" if where else name, {})
        solvable, aligned = shelf.metrics(run.cell, "solvable"), shelf.metrics(run.cell, "aligned")
        loaded, solved, kept = number(solvable.get("n_problems")), number(solvable.get("n_solvable")), number(aligned.get("n"))
        if math.isfinite(solved):
            every = f", every arm has {plain(kept, 0)}" if math.isfinite(kept) else ""
            counts[f"{run.student} solved {plain(solved, 0)} of {plain(loaded, 0)} at least once{every}"] = None
    return [f"{name}{': ' if counts else ''}{'; '.join(counts)}" for name, counts in made.items()]


def _arm(run: Run) -> str:
    get = run.cell.get
    oracle = f" {get('oracle.name')}" if get("oracle.name") not in (None, "", "none") else ""
    words = {"oracle": oracle, "path": get("source.path") or "given"}
    parts = [_SOURCES.get(part, part).format(**words) for part in str(get("source.name")).split("+")]
    told = f"{' together with '.join(parts)}{_REFINEMENTS.get(str(get('refinement.name')), '').format(**words)}"
    return told + (f"; of a problem's candidates the one chosen by {_selection(run)}" if run.arm.selects else "")


def _selection(run: Run) -> str:
    arm = run.arm
    extra = [f"λ = {brief(arm.weight)}"] if arm.weight is not None else []
    extra += [f"reward by {arm.reward}"] if arm.reward else []
    return f"{arm.selection} ({', '.join(extra)})" if extra else arm.selection


def _sampling(cells: Sequence[Cell], section: str, what: str) -> str:
    if not cells:
        return ""
    told = [f"{_varied(cells, f'{section}.n')} {what}", f"temperature {_varied(cells, f'{section}.temperature')}"]
    told += [f"{name} {_varied(cells, f'{section}.{name}')}" for name, off in (("top_p", 1), ("top_k", 0), ("min_p", 0)) if values(cells, f"{section}.{name}") not in ([off], [None])]  # fmt: skip
    told.append(f"at most {_varied(cells, f'{section}.max_new_tokens')} tokens")
    backend = _varied(cells, f"{section}.backend")
    return ", ".join(told) + (f", by {backend}" if backend else "")


def _training(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    objectives = " or ".join(str(one).upper() for one in values(cells, "trainer.objective"))
    told = [objectives, f"learning rate {_varied(cells, 'trainer.lr')}", f"batch of {_varied(cells, 'trainer.batch_size')} examples"]
    epochs = values(cells, "trainer.epochs")
    told.append(f"{_varied(cells, 'trainer.epochs')} epoch{'' if epochs == [1] else 's'}")
    if values(cells, "trainer.max_steps") != [None]:
        told.append(f"at most {_varied(cells, 'trainer.max_steps', 'any number of')} steps")
    told += [f"examples of at most {_varied(cells, 'trainer.max_length')} tokens", _varied(cells, "trainer.dtype")]
    ranks = values(cells, "trainer.lora.rank")
    told.append("all weights" if ranks == [None] else f"LoRA of rank {' or '.join('none' if one is None else brief(one) for one in ranks)}")
    return ", ".join(told)


def _rewards(cell: Cell) -> list[str]:
    made = []
    for name, one in (cell.get("reward") or {}).items():
        where = (
            f"made in the lab ({one['lab'].get('kind')})"
            if one.get("lab")
            else _located(one.get("path"), one.get("revision"), one.get("content"))
        )
        named = " (named for the verdict)" if cell.get("verdict.reward") == name else ""
        made.append(f"{name}: {where}{named}")
    return made  # fmt: skip


def _evaluation(cells: Sequence[Cell], shelf: Shelf) -> str:
    found = dict.fromkeys((name for cell in cells for name in cell.get("evaluation.benchmarks") or {}), math.nan)
    if not found:
        return ""
    for cell in cells:
        for name, one in (shelf.metrics(cell, "evaluate").get("benchmarks") or {}).items():
            found[name] = number(one.get("n"))
    names = [f"{name} ({plain(n, 0)} problems)" if math.isfinite(n) else name for name, n in found.items()]
    apart = [f"{count} problems of {name}" for one in values(cells, "evaluation.dev") for name, count in (one or {}).items()]
    told = f"{joined(names)}; {_sampling(cells, 'evaluation.sampling', 'answers a problem')}"
    return told + (f"; kept apart for choosing: {joined(list(dict.fromkeys(apart)))}" if apart else "")


def _seeds(cells: Sequence[Cell], trained: Sequence[Cell]) -> str:
    parts = []
    for what, path, among in (
        ("training", "trainer.seed", trained), ("evaluation", "evaluation.sampling.seed", cells), ("rollouts", "rollouts.sampling.seed", trained),
        ("selection", "selection.seed", trained), ("Oracle", "oracle.seed", trained), ("pretraining", "model.lab.seed", cells),
    ):  # fmt: skip
        found = [one for one in values(among, path) if one is not None]
        if found:
            parts.append(f"{what} {', '.join(map(str, sorted(found)))}")
    return "; ".join(parts)


def _versions(study: Study, used: Sequence[Artifact]) -> str:
    """When the results were made, and by what; results of several versions say so."""
    if not used:
        return ""
    ended = [stamp for one in used if math.isfinite(stamp := number(one.manifest.get("finished")))]
    days = (
        list(dict.fromkeys(datetime.fromtimestamp(stamp, UTC).strftime("%Y-%m-%d") for stamp in (min(ended), max(ended)))) if ended else []
    )
    told = [" to ".join(days)] if days else []
    told += [f"{name} {value}" for name, value in study.launched_by.items()]
    packages: dict[str, set[str]] = {}
    for one in used:
        for name, version in (one.manifest.get("packages") or {}).items():
            packages.setdefault(name, set()).add(str(version))
    told += [f"{name} {' and '.join(sorted(packages[name]))}" for name in PACKAGES if name in packages]
    return ", ".join(told)
