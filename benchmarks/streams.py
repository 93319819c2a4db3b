"""100,000 problems × 8 rollouts through candidates, alignment and streams: seconds and memory.

    python -m benchmarks.streams [--problems 100000]

Rollouts, rewards and NLL are simulated: texts of about 1,200 characters of prose and formulas, half of them
verified. Each step runs in a process of its own; its memory is that process's peak. No figure has a peer: limits are
the project's own (a selection in 10 s and 2 GB, everything in 4 GB, a flat cost per problem).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.common import Check, Measure, conclude, run
from qup.context import Context
from qup.rows import TableWriter
from qup.store import Artifact
from qup.store.digest import file_sha256

SAMPLES = 8
CHARACTERS = 1200
RULES = ("random", "shortest", "reward", "perplexity", "rank_surprisal", "joint", "pareto")
SECONDS, GIGABYTES, ALL_GIGABYTES = 10.0, 2.0, 4.0
PIECE = 2000

WORDS = [
    "First",
    "we",
    "count",
    "the",
    "apples",
    "that",
    "are",
    "left,",
    "which",
    "\n\n",
    "is",
    "\\(17-5=12\\)",
    "Then",
    "each",
    "of",
    "boxes",
    "holds",
    "\\(\\frac{12}{4}=3\\)",
    "so",
    "have",
    "\\[3\\cdot9=27\\]",
    "Next",
    "subtract",
    "what",
    "was",
    "given",
    "away",
    "and",
    "check",
    "result",
    "once",
    "more.",
    "total",
    "cost",
    "per",
    "hour",
    "equals",
    "$x+y$",
    "because",
    "both",
    "sides",
    "Therefore",
    "48",
    "7",
    "19",
    "105",
    "half",
    "third",
    "sum",
    "product",
    "remaining",
    "students",
    "tickets",
    "sold",
    "miles",
    "speed",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=100_000)
    parser.add_argument("--child", nargs=3, metavar=("STEP", "FOLDER", "OUTPUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child, problems=args.problems)
        return 0
    small = max(args.problems // 100, 50)
    steps: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        for n, names in ((small, ("make", "candidates", "aligned", "random")), (args.problems, ("make", "candidates", "aligned", *RULES))):
            for name in names:
                steps[f"{name}@{n}"] = spawn(name, Path(folder) / str(n), n)
    large = {name: steps[f"{name}@{args.problems}"] for name in ("candidates", "aligned", *RULES)}
    measures = []
    for rule in RULES:
        measures.append(Measure(f"selection {rule}: time, limit {SECONDS:g}", "s", large[rule]["seconds"], SECONDS, 1.0, "lower"))
        measures.append(Measure(f"selection {rule}: memory, limit {GIGABYTES:g}", "GB", large[rule]["gb"], GIGABYTES, 1.0, "lower"))
    peak = max(step["gb"] for step in large.values())
    measures.append(Measure(f"candidates, alignment, streams: memory, limit {ALL_GIGABYTES:g}", "GB", peak, ALL_GIGABYTES, 1.0, "lower"))
    cost = {n: sum(steps[f"{name}@{n}"]["cpu_seconds"] for name in ("candidates", "aligned", "random")) / n for n in (small, args.problems)}
    flat = cost[args.problems] / cost[small]
    checks = [
        Check(
            f"cost a problem flat from {small:,} to {args.problems:,}",
            flat <= 1.25,
            f"{1e3 * cost[args.problems]:.2f} CPU ms, {flat:.2f} times",
        )
    ]
    return conclude("streams", measures, checks, steps=steps)


def spawn(step: str, folder: Path, problems: int) -> dict[str, float]:
    """Runs one step in a child with one thread."""
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"{step}.json"
    command = [sys.executable, "-m", "benchmarks.streams", "--problems", str(problems), "--child", step, str(folder), str(output)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return json.loads(output.read_text())  # type: ignore[no-any-return]


def child(step: str, folder: str, output: str, *, problems: int) -> None:
    """One step, timed; `seconds` leave the imports out."""
    root = Path(folder)
    if step == "make":
        make(root, problems)
        Path(output).write_text("{}")
        return
    from qup.stages import aligned, candidates, stream

    inputs = {name: opened(root / name) for name in ("problems", "rollouts", "solvable")}
    start, cpu = time.perf_counter(), time.process_time()
    if step == "candidates":
        ctx = context(root, "candidates")
        view = candidates_view()
        candidates.shard(view, inputs, ctx, range(candidates.plan(view, inputs, ctx)))
        candidates.merge(view, inputs, ctx)
    else:
        inputs |= {"pool.student": opened(root / "candidates"), "arm.student": opened(root / "candidates")}
        if step == "aligned":
            from qup.config.schema import Alignment
            from qup.config.views import AlignedView

            aligned.run(AlignedView(Alignment(), ("student",)), inputs, context(root, "aligned"))
        else:
            from qup.config.schema import Alignment, Selection
            from qup.config.views import StreamView

            inputs |= {
                "aligned": opened(root / "aligned"),
                "reward.student": opened(root / "reward"),
                "nll.student": opened(root / "perplexity"),
            }
            view = StreamView(Selection(step, 0, "rm", 1.0), Alignment(), ("student",))
            stream.run(view, inputs, context(root, f"stream-{step}"))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    Path(output).write_text(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "gb": peak / 2**20}))


def candidates_view() -> Any:
    from qup.config.schema import Model, Oracle, Refinement, Source
    from qup.config.views import CandidatesView

    return CandidatesView(Source("student"), Refinement("none"), Oracle(), 0, "dft", 5.0, Model())


def context(root: Path, name: str) -> Context:
    """A context whose `out` is where the next step looks for its input."""
    folders = {"out": root / name, "work": root / f"{name}.work", "shared": root / "shared"}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    return Context(**folders)


def opened(folder: Path) -> Artifact:
    """The tables of a folder as an artifact; checksums are taken here, outside the timed part."""
    files = {path.name: {"size": path.stat().st_size, "sha256": file_sha256(path)} for path in folder.glob("*.parquet")}
    return Artifact(folder.name, folder.name, folder, {"key": folder.name, "digest": "", "files": files, "metrics": {}})


def make(root: Path, problems: int) -> None:
    """Writes problems, rollouts, solvable, rewards and NLL, a piece at a time."""
    from qup.draws import choose
    from qup.records import PROBLEMS, ROLLOUTS, SCORES, SOLVABLE, TOTALS

    rng = np.random.default_rng(0)
    body = " ".join(rng.choice(WORDS, 200_000))
    schemas = {"problems": PROBLEMS, "rollouts": ROLLOUTS, "solvable": SOLVABLE, "scores": SCORES, "totals": TOTALS}
    homes = {"scores": "reward", "totals": "perplexity"}
    writers = {}
    for name, schema in schemas.items():
        home = root / homes.get(name, name)
        home.mkdir(parents=True, exist_ok=True)
        writers[name] = TableWriter(home, name, schema).__enter__()
    for start in range(0, problems, PIECE):
        ids = [f"problem-{index:07d}" for index in range(start, min(start + PIECE, problems))]
        n, rows = len(ids), len(ids) * SAMPLES
        owner = [name for name in ids for _ in range(SAMPLES)]
        sample = np.tile(np.arange(SAMPLES), n)
        good = rng.random((n, SAMPLES)) < 0.5
        good[np.arange(n), rng.integers(0, SAMPLES, n)] = True
        kept = [int(np.flatnonzero(row)[choose(0, name, int(row.sum()))]) for name, row in zip(ids, good, strict=True)]
        length = np.maximum(rng.normal(CHARACTERS, 300, rows), 100).astype(int)
        offset = rng.integers(0, len(body) - 4 * CHARACTERS, rows)
        texts = [
            f"{body[o : o + size]} {number}.\n\nThe answer is \\(\\boxed{{27}}\\)."
            for number, (o, size) in enumerate(zip(offset, length, strict=True), start)
        ]
        tokens = length // 4
        right = good.ravel()
        keys = {"pool": [""] * rows, "problem_id": owner, "candidate": sample}
        tables: dict[str, dict[str, Any]] = {
            "problems": {
                "problem_id": ids,
                "question": [f"{name}: {body[:200]}" for name in ids],
                "answer": ["27"] * n,
                "solution": [""] * n,
            },
            "rollouts": {
                "problem_id": owner,
                "sample": sample,
                "text": texts,
                "token_ids": [[]] * rows,
                "logprob_T": [[]] * rows,
                "finish": ["stop"] * rows,
                "extracted": ["27"] * rows,
                "correct": right,
                "verdict": np.where(right, "equal", "wrong").tolist(),
                "eligible": right,
            },
            "solvable": {"problem_id": ids, "n_samples": [SAMPLES] * n, "n_correct": good.sum(1), "n_eligible": good.sum(1), "kept": kept},
            "scores": {**keys, "score": rng.normal(size=rows), "n_tokens": tokens, "fits": [True] * rows},
            "totals": {
                **keys,
                "n_prompt": [60] * rows,
                "n_tokens": tokens,
                "n_chars": length,
                "nll": tokens * rng.gamma(4, 0.1, rows),
                "rank": tokens * 3,
            },
        }
        for name, columns in tables.items():
            schema = schemas[name]
            writers[name].write(pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema))
    for writer in writers.values():
        writer.__exit__(None, None, None)


if __name__ == "__main__":
    run(main)
