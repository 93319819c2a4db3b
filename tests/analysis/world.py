"""A finished study made of invented artifacts, in the shapes that stages write, keyed as the pipeline keys them."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qup.analysis.findings.survey import survey
from qup.analysis.page.render import render
from qup.analysis.report import all_tables, pictures
from qup.analysis.results.shelf import Shelf
from qup.config.fingerprint import plain
from qup.config.schema import Benchmark, Config, LabProblems, LabStudent, Model, Selection, Trainer
from qup.files import write_json
from qup.pipeline import Graph, Node, build_graph
from qup.records import ALIGNED, CANDIDATES, EVALUATED, LOSSES, RETENTION, SCORES, STREAM, TOTALS, TRACES
from qup.records import TOKENS as TOKEN_TABLE
from qup.store import Store, save_table
from qup.store.store import Record
from qup.study import Study
from tests.helpers.cells import cell

REWARD = {"slm_rft": 1.47, "oracle_refined": 1.70, "oracle_synthesized": 1.88, "style_aligned": 1.60, "numina_subset": 1.78}
SURPRISE = {"slm_rft": 0.42, "oracle_refined": 0.62, "oracle_synthesized": 0.99, "style_aligned": 0.40, "numina_subset": 1.1}
SKILL = {"base": -1.2, "slm_rft": 0.3, "oracle_refined": -0.3, "oracle_synthesized": -0.9, "style_aligned": 0.5, "numina_subset": -0.7}
WORDS = [
    "first",
    "we",
    "take",
    "the",
    "number",
    "and",
    "add",
    "then",
    "so",
    "it",
    "is",
    "total",
    "left",
    "gives",
    "half",
    "twice",
    "more",
    "than",
    "each",
]
OPENING = {
    "slm_rft": "To find it",
    "style_aligned": "To find it",
    "oracle_refined": "\\( x",
    "oracle_synthesized": "\\[ x = \\]",
    "numina_subset": "Let x",
}


@dataclass
class World:
    """How large and how wild the invented study is."""

    cells: Sequence[Config]
    problems: int = 40
    samples: int = 4
    length: int = 24
    steps: int = 60
    edge: str = "<script>alert('x')</script> & <b>bold</b>"
    """Put into every fifth trace."""
    skip: Callable[[Node], bool] = field(default=lambda node: False)
    """Stages whose results are left out."""
    skills: dict[str, float] = field(default_factory=dict)
    model: Path | None = None
    """A model directory that every training hands out."""


def lab_cells(
    arms: Sequence[str] = ("slm_rft", "oracle_refined", "oracle_synthesized", "style_aligned", "numina_subset"),
    objectives: Sequence[str] = ("sft", "dft"),
    students: Sequence[tuple[str, float]] = (("lab_foreign", 0.0), ("lab_familiar", 0.3)),
    seeds: Sequence[int] = (0,),
    benchmarks: dict[str, int] | None = None,
    dev: dict[str, int] | None = None,
    trainers: Sequence[dict[str, Any]] = ({},),
    selections: Sequence[Selection] = (Selection(seed=0),),
) -> list[Config]:
    """The cells of a grid, base rows included."""
    sizes = benchmarks or {"easy": 60, "hard": 30}
    made = []
    for name, exposure in students:
        for seed in seeds:
            for arm in ("base", *arms):
                for objective in objectives if arm != "base" else ("sft",):
                    for trainer in trainers if arm != "base" else ({},):
                        for selection in selections if arm != "base" else (Selection(seed=0),):
                            one = cell(
                                arm,
                                objective,
                                model=Model(name=name, lab=LabStudent(exposure=exposure)),
                                trainer=Trainer(objective=objective, seed=seed, **trainer),
                                selection=selection,
                                seed=seed,
                            )
                            drawn = {bench: Benchmark(lab=LabProblems(n=n, seed=7)) for bench, n in sizes.items()}
                            sampling = dataclasses.replace(one.evaluation.sampling, seed=seed)
                            evaluation = dataclasses.replace(one.evaluation, benchmarks=drawn, dev=dev or {}, sampling=sampling)
                            made.append(dataclasses.replace(one, evaluation=evaluation))
    return made


def build_study(root: Path, world: World, name: str = "test") -> tuple[Path, Store]:
    """Publishes every artifact of the cells' graph and registers the study; returns its folder and the store."""
    store = Store(root / "store")
    graph = build_graph(world.cells)
    users = _users(graph)
    for ref, node in graph.nodes.items():
        if not world.skip(node):
            _publish(store, node, world, users.get(ref))
    folder = store.studies / name
    cells = [
        {"label": c.label, "config": plain(c.config), "given": plain(c.config), "stages": c.stages, "merged": c.merged} for c in graph.cells
    ]
    write_json(folder / "study.json", {"name": name, "store": str(store.root), "grid": [], "cells": cells, "nodes": {}})
    return folder, store


def _users(graph: Graph) -> dict[Any, Config]:
    """The cell that each stage belongs to; a ranking makes every stream of a student a need of all its cells."""
    own = {
        key: cell.config
        for cell in reversed(graph.cells)
        for entry in cell.stages.values()
        for key in (entry.values() if isinstance(entry, dict) else [entry])
    }
    return {ref: own.get(ref.key) or graph.cells[indices[0]].config for ref, indices in graph.users.items() if indices}


def _publish(store: Store, node: Node, world: World, config: Config | None) -> None:
    lease = store.acquire(node.kind, node.key, {}, lambda: False)
    if lease is None:
        return
    out = store.draft(node.kind, node.key)
    make = globals().get(f"_make_{node.kind}")
    metrics = make(out, node, world, config, _rng(node.key)) if make and config is not None else {}
    inputs = {name: {"stage": ref.kind, "key": ref.key, "digest": ref.key} for name, ref in node.inputs.items()}
    record = Record(node.kind, 1, node.key, {}, inputs, "c0de", f"identity-{node.key}", "test")
    facts = {"seconds": 12.5, "cpu_seconds": 10.0, "finished": 1.0, "gpus": "1" if node.kind in ("train", "evaluate") else "0"}
    store.publish(out, record, metrics, lease, facts)
    lease.release()


def _rng(key: str) -> np.random.Generator:
    return np.random.default_rng(int(key[:12], 16))


def _ids(world: World) -> list[str]:
    return [f"p{index:04d}" for index in range(world.problems)]


def _arm(config: Config) -> str:
    return config.stream.name


def _texts(world: World, config: Config) -> list[list[str]]:
    """Words of each problem's trace: the baseline's, changed more the more foreign the arm."""
    rng = np.random.default_rng(5)
    foreign = SURPRISE[_arm(config)]
    change = np.random.default_rng(int(1000 * foreign) + int(10 * config.selection.weight))
    made = []
    for index in range(world.problems):
        words = [WORDS[i] for i in rng.integers(0, len(WORDS), world.length)]
        words = [WORDS[change.integers(0, len(WORDS))] if change.random() < foreign / 4 else word for word in words]
        words = [*OPENING[_arm(config)].split(), *words, "answer:", str(index)]
        made.append(words if index % 5 else [*world.edge.split(), *words])
    return made


def _make_rollouts(out: Path, node: Node, world: World, config: Config, rng: np.random.Generator) -> dict[str, Any]:
    return {
        "n_problems": world.problems + 12,
        "n_samples": 8 * (world.problems + 12),
        "truncated": 6,
        "clamped": 4,
    }


def _make_verdicts(out: Path, node: Node, world: World, config: Config, rng: np.random.Generator) -> dict[str, Any]:
    return {"n_samples": 8 * (world.problems + 12), "correct_cut_off": 2, "no_answer": 3, "undecided": 5, "timeouts": 0}


def _make_solvable(out: Path, node: Node, world: World, config: Config, rng: np.random.Generator) -> dict[str, Any]:
    return {"n_problems": world.problems + 12, "n_solvable": world.problems + 5}


def _make_aligned(out: Path, node: Node, world: World, config: Config, rng: np.random.Generator) -> dict[str, Any]:
    save_table(out, "aligned", pa.table({"problem_id": _ids(world)}, schema=ALIGNED))
    save_table(out, "losses", LOSSES.empty_table())
    lost = {arm: int(rng.integers(0, 5)) for arm in node.view.arms}
    return {
        "n": world.problems,
        "n_solvable": world.problems + 5,
        "n_dropped": 5,
        "lost": lost,
        "lost_alone": lost,
        "solve_rate_kept": 0.6,
        "solve_rate_dropped": 0.3,
    }


def _make_candidates(out: Path, node: Node, world: World, config: Config, rng: np.random.Generator) -> dict[str, Any]:
    save_table(out, "candidates", CANDIDATES.empty_table())
    metrics: dict[str, Any] = {
        "n": world.problems,
        "verdicts": {"equal": world.problems - 2, "wrong": 1, "cut_off": 1},
        "n_eligible": world.problems - 2,
        "mean_edit_distance": SURPRISE[_arm(config)] / 4 if config.refinement.name != "none" else None,
    }
    if node.view.oracle.backend != "none":
        metrics |= {"attempts": 44, "failures": {"refused": 1, "wrong": 3}}
        metrics["spent"] = {"requests": 44, "retries": 4, "usd": 1.25, "input_tokens": 9000, "output_tokens": 8000}
    return metrics


def _make_stream(out: Path, node: Node, world: World, config: Config, rng: np.random.Generator) -> dict[str, Any]:
    texts = [" ".join(words) for words in _texts(world, config)]
    n = world.problems
    columns = {
        "problem_id": _ids(world), "pool": ["student"] * n, "candidate": [0] * n, "question": [f"What is {i} & <i>more</i>?" for i in range(n)],
        "text": texts, "correct": [True] * n, "status": ["ok"] * n, "random_candidate": ["student/0"] * n, "n_eligible": [3] * n,
        "teacher": [""] * n, "weight": [1.0] * n, "turns": [None] * n,
    }  # fmt: skip
    save_table(out, "stream", pa.table(columns, schema=STREAM))
    share = 0.0 if config.selection.name == "random" else 0.6
    return {
        "n": n, "pool_size": 3.2, "share_multi": 0.8, "share_not_random": share, "n_correct_stream": n, "n_flagged": 0, "n_native": 0,
        "within_correlation": 0.21 if config.selection.name == "joint" else None, "traces_digest": json.dumps([_arm(config), plain(config.selection)]),
    }  # fmt: skip


def _make_reward(out: Path, node: Node, world: World, config: Config, rng: np.random.Generator) -> dict[str, Any]:
    bonus = {"reward": 0.3, "joint": 0.2}.get(config.selection.name, 0.0)
    problem = np.random.default_rng(17).normal(0, 0.5, world.problems)
    score = REWARD[_arm(config)] + bonus + problem + rng.normal(0, 0.25, world.problems)
    score[-1] = math.nan
    columns = {
        "pool": [""] * world.problems, "problem_id": _ids(world), "candidate": [0] * world.problems, "score": score,
        "n_tokens": [30] * world.problems, "fits": [True] * (world.problems - 1) + [False],
    }  # fmt: skip
    save_table(out, "scores", pa.table(columns, schema=SCORES))
    return {"n": world.problems, "n_unfit": 1, "n_invalid": 0, "mean": float(np.nanmean(score))}


def _make_perplexity(out: Path, node: Node, world: World, config: Config, rng: np.random.Generator) -> dict[str, Any]:
    texts = _texts(world, config)
    names = sorted({*WORDS, *world.edge.split(), "answer:", *" ".join(OPENING.values()).split(), *[str(i) for i in range(world.problems)]})
    number = {word: index + 1 for index, word in enumerate(names)}
    ids = [[*[number[word] for word in words], 0] for words in texts]
    level = SURPRISE[_arm(config)] - (0.1 if config.selection.name in ("perplexity", "joint") else 0.0)
    nll = [rng.gamma(1.0, level * np.linspace(1.5, 0.6, len(one))).astype(np.float32) for one in ids]
    n = world.problems
    common = {
        "pool": [""] * n,
        "problem_id": _ids(world),
        "candidate": [0] * n,
        "n_prompt": [12] * n,
        "n_chars": [len(" ".join(w)) for w in texts],
    }
    traces = {**common, "token_ids": ids, "nll_T": [one.tolist() for one in nll], "rank_T": [[1] * len(one) for one in ids]}
    save_table(out, "traces", pa.table({name: traces[name] for name in TRACES.names}, schema=TRACES))
    totals = {
        **common,
        "n_tokens": [len(one) - 1 for one in ids],
        "nll": [float(one[:-1].sum()) for one in nll],
        "rank": [len(one) * 3 for one in ids],
    }
    save_table(out, "totals", pa.table({name: totals[name] for name in TOTALS.names}, schema=TOTALS))
    rows: dict[tuple[int, int], list[float]] = {}
    quarter_sum, quarter_count = np.zeros(4), np.zeros(4)
    for tokens, values in zip(ids, nll, strict=True):
        size = len(tokens) - 1
        for place in range(size):
            q = 4 * place // size
            entry = rows.setdefault((tokens[place], q + 1), [0, 0.0])
            entry[0] += 1
            entry[1] += float(values[place])
            quarter_sum[q] += values[place]
            quarter_count[q] += 1
    table = [(token, names[token - 1], q, int(count), total) for (token, q), (count, total) in sorted(rows.items())]
    save_table(out, "tokens", pa.table({name: [row[i] for row in table] for i, name in enumerate(TOKEN_TABLE.names)}, schema=TOKEN_TABLE))
    mean = quarter_sum.sum() / quarter_count.sum()
    quarters = {f"ppl_q{q + 1}": float(np.exp(quarter_sum[q] / quarter_count[q])) for q in range(4)}
    return {
        "n": n, "ppl": float(np.exp(mean)), "nll": float(mean), **quarters, "nll_per_char": float(mean) / 4, "rank_surprisal": 3 * level,
        "mean_tokens": float(np.mean([len(one) - 1 for one in ids])), "n_truncated": 1,
    }  # fmt: skip


def _make_retention(out: Path, node: Node, world: World, config: Config, rng: np.random.Generator) -> dict[str, Any]:
    rating = np.clip(rng.normal(5 - SURPRISE[_arm(config)], 0.5, world.problems), 1, 5).astype(np.float32)
    columns = {"problem_id": _ids(world), **dict.fromkeys(RETENTION.names[1:], rating)}
    save_table(out, "retention", pa.table(columns, schema=RETENTION))
    return {"retention": float(rating.mean()), "n": world.problems, "n_failed": 1, "spent": {"requests": 40, "usd": 0.5}}


def _make_ranking(out: Path, node: Node, world: World, config: Config, rng: np.random.Generator) -> dict[str, Any]:
    return {"mean_rank": {arm: float(index + 1) for index, arm in enumerate(node.view.arms)}, "n": world.problems}


def _make_train(out: Path, node: Node, world: World, config: Config, rng: np.random.Generator) -> dict[str, Any]:
    level = SURPRISE[_arm(config)]
    lines = []
    for step in range(1, world.steps + 1):
        nll = level * (0.6 + 0.4 * math.exp(-step / 12)) + rng.normal(0, 0.02)
        lines.append(
            {"step": step, "nll": nll, "loss": nll / 10, "lr": 1e-4, "targets": 500, "tokens": 700, "grad_norm": 1.0, "skipped": False}
        )
    (out / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if world.model is not None:
        shutil.copytree(world.model, out / "model")
    else:
        (out / "model").mkdir()
        (out / "model" / "config.json").write_text("{}")
    return {
        "n_train": world.problems, "mean_tokens": 60.0, "train_tokens": 60 * world.problems, "steps": world.steps, "share_truncated": 0.01,
        "train_nll_first": level, "train_nll_last": 0.6 * level, "skipped_steps": 0,
    }  # fmt: skip


def _make_evaluate(out: Path, node: Node, world: World, config: Config, rng: np.random.Generator) -> dict[str, Any]:
    skill = world.skills.get(_arm(config), SKILL[_arm(config)]) + (
        0.4 if config.trainer.objective == "dft" and _arm(config) != "base" else 0.0
    )
    skill += {"joint": 0.3, "perplexity": 0.15, "reward": -0.2}.get(config.selection.name, 0.0) + rng.normal(0, 0.05)
    if config.model.name == "lab_familiar":
        skill *= 0.4
    names, ids, samples, correct, dev = [], [], [], [], []
    for place, (name, benchmark) in enumerate(config.evaluation.benchmarks.items()):
        assert benchmark.lab is not None
        size = benchmark.lab.n
        difficulty = np.random.default_rng(place).normal(0.5 - place, 1.5, size)
        p = 1 / (1 + np.exp(-(skill + difficulty + rng.normal(0, 0.4, size))))
        right = rng.random((size, world.samples)) < p[:, None]
        names += [name] * right.size
        ids += np.repeat([f"{name}-{i}" for i in range(size)], world.samples).tolist()
        samples += np.tile(np.arange(world.samples), size).tolist()
        correct += right.ravel().tolist()
        dev += np.repeat(np.arange(size) < config.evaluation.dev.get(name, 0), world.samples).tolist()
    n = len(names)
    columns = {
        "benchmark": names, "problem_id": ids, "dev": dev, "sample": samples, "n_tokens": [20] * n, "finish": ["stop"] * n,
        "extracted": ["1"] * n, "correct": correct, "verdict": ["equal" if one else "wrong" for one in correct],
    }  # fmt: skip
    save_table(out, "verdicts", pa.table(columns, schema=EVALUATED))
    got = {}
    for name in config.evaluation.benchmarks:
        mine = [c for c, b, d in zip(correct, names, dev, strict=True) if b == name and not d]
        got[name] = {"avg": 100 * float(np.mean(mine)), "n": len(mine) // world.samples}
    reported = [c for c, d in zip(correct, dev, strict=True) if not d]
    return {
        "benchmarks": got,
        "template_hash": "a" * 64,
        "total": float(np.mean([one["avg"] for one in got.values()])),
        "total_pooled": 100 * float(np.mean(reported)),
    }


def reseal(path) -> None:
    import json

    from qup.files import file_sha256

    manifest = json.loads((path / "manifest.json").read_text())
    for name in manifest["files"]:
        manifest["files"][name] = {"size": (path / name).stat().st_size, "sha256": file_sha256(path / name)}
    (path / "manifest.json").write_text(json.dumps(manifest))


ONE = {"objectives": ("sft",), "students": (("lab_foreign", 0.0),)}


def told(folder: Path, store: Store) -> str:
    """The page without pictures, which are drawn but not written: the slow part."""
    made = survey(Study.load(folder), Shelf(store))
    pictures(made)
    return render(made, all_tables(made, published=False), [], {})


def content(page: Path) -> str:
    return page.read_text(encoding="utf-8")
