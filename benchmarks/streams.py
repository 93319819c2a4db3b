"""100,000 problems × 8 rollouts through verification, candidates, alignment and streams: seconds and memory.

    python -m benchmarks.streams [--problems 100000]

Responses, rewards and NLL are simulated: texts of about 1,200 characters of prose and formulas with token ids and
log-probabilities, half of them right; one problem in fifty has an answer that takes computer algebra. Each step runs
in a process of its own; its memory is that process's peak, and that of the children that compare answers on top. No
figure has a peer: limits are the project's own (a selection in 10 s and 2 GB, everything in 4 GB, a flat cost per problem).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.common import Check, Measure, conclude, run
from qup.files import file_sha256
from qup.pipeline.context import Context
from qup.store import Artifact
from qup.store.rows import TableWriter

SAMPLES = 8
CHARACTERS = 1200
PROMPT = 60
ALGEBRA = 50
"""One problem in so many has an answer that is no plain number."""
STEPS = ("verify", "candidates", "aligned")
RULES = ("random", "shortest", "reward", "perplexity", "rank_surprisal", "joint", "pareto")
SECONDS, GIGABYTES, ALL_GIGABYTES = 10.0, 2.0, 4.0
FLAT = 1.25
"""Most by which a further problem may cost more, CPU seconds, in the upper nine tenths than in the tenth below them."""
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
    small, middle = max(args.problems // 100, 50), max(args.problems // 10, 60)
    sizes = {small: ("random",), middle: ("random",), args.problems: RULES}
    steps: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        for n, rules in sizes.items():
            for name in ("make", *STEPS, *rules):
                steps[f"{name}@{n}"] = spawn(name, Path(folder) / str(n), n)
    large = {name: steps[f"{name}@{args.problems}"] for name in (*STEPS, *RULES)}
    measures = []
    for rule in RULES:
        measures.append(Measure(f"selection {rule}: time, limit {SECONDS:g}", "s", large[rule]["seconds"], SECONDS, 1.0, "lower"))
        measures.append(Measure(f"selection {rule}: memory, limit {GIGABYTES:g}", "GB", large[rule]["gb"], GIGABYTES, 1.0, "lower"))
    peak = max(step["gb"] for step in large.values())
    measures.append(Measure(f"verification, alignment, streams: memory, limit {ALL_GIGABYTES:g}", "GB", peak, ALL_GIGABYTES, 1.0, "lower"))
    cpu = {n: sum(steps[f"{name}@{n}"]["cpu_seconds"] for name in (*STEPS, "random")) for n in sizes}
    lower, upper = (cpu[middle] - cpu[small]) / (middle - small), (cpu[args.problems] - cpu[middle]) / (args.problems - middle)
    told = f"{1e3 * upper:.2f} CPU ms above {middle:,}, {upper / lower:.2f} times that below"
    checks = [Check(f"cost of a further problem flat from {small:,} to {args.problems:,}", upper / lower <= FLAT, told)]
    return conclude("streams", measures, checks, steps=steps)


def spawn(step: str, folder: Path, problems: int) -> dict[str, float]:
    """Runs one step in a child with one thread."""
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"{step}.json"
    command = [sys.executable, "-m", "benchmarks.streams", "--problems", str(problems), "--child", step, str(folder), str(output)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return json.loads(output.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def child(step: str, folder: str, output: str, *, problems: int) -> None:
    """One step, timed; `seconds` leave the imports out, `cpu_seconds` the children that compare answers."""
    root = Path(folder)
    if step == "make":
        make(root, problems)
        Path(output).write_text("{}", encoding="utf-8")
        return
    from qup.stages import aligned, candidates, stream

    inputs = {name: opened(root / name) for name in ("problems", "rollouts", "verdicts", "solvable") if step != "verify"}
    start, cpu = time.perf_counter(), time.process_time()
    if step == "verify":
        verify(root)
    elif step == "candidates":
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
    peak = next(
        int(line.split()[1]) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")
    )
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak += (len(os.sched_getaffinity(0)) if step == "verify" else 0) * children.ru_maxrss
    figures = {"seconds": seconds, "cpu_seconds": cpu, "children_cpu_seconds": children.ru_utime + children.ru_stime, "gb": peak / 2**20}
    Path(output).write_text(json.dumps(figures), encoding="utf-8")


def verify(root: Path) -> None:
    """The verdicts of all rollouts, shard by shard, and the solvable problems."""
    from qup.config.views import SolvableView, VerdictsView
    from qup.stages import solvable, verdicts

    view, ctx = VerdictsView("dft", 5.0), context(root, "verdicts")
    inputs = {name: opened(root / name) for name in ("problems", "rollouts")}
    verdicts.shard(view, inputs, ctx, list(range(verdicts.plan(view, inputs, ctx))))
    verdicts.merge(view, inputs, ctx)
    solvable.run(SolvableView(0), inputs | {"verdicts": opened(root / "verdicts")}, context(root, "solvable"))


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
    """Writes problems, drawn responses, rewards and NLL, a piece at a time."""
    from qup.records import PROBLEMS, ROLLOUTS, SCORES, TOTALS

    rng = np.random.default_rng(0)
    body = " ".join(rng.choice(WORDS, 200_000))
    ids, logprobs = rng.integers(0, 50_000, 200_000).astype(np.int32), -rng.gamma(0.5, 0.5, 200_000).astype(np.float32)
    schemas = {"problems": PROBLEMS, "rollouts": ROLLOUTS, "scores": SCORES, "totals": TOTALS}
    homes = {"scores": "reward", "totals": "perplexity"}
    writers = {}
    for name, schema in schemas.items():
        home = root / homes.get(name, name)
        home.mkdir(parents=True, exist_ok=True)
        writers[name] = TableWriter(home, name, schema).__enter__()
    for start in range(0, problems, PIECE):
        numbers = range(start, min(start + PIECE, problems))
        names = [f"problem-{number:07d}" for number in numbers]
        n, rows = len(names), len(names) * SAMPLES
        sample = np.tile(np.arange(SAMPLES), n)
        good = rng.random((n, SAMPLES)) < 0.5
        good[np.arange(n), rng.integers(0, SAMPLES, n)] = True
        length = np.maximum(rng.normal(CHARACTERS, 300, rows), 100).astype(int)
        tokens = length // 4
        offset = rng.integers(0, len(body) - 4 * CHARACTERS, rows)
        answers = [answer(number, bool(right)) for number, row in zip(numbers, good, strict=True) for right in row]
        texts = [
            f"{body[o : o + size]}.\n\nThe answer is \\(\\boxed{{{said}}}\\)."
            for o, size, said in zip(offset.tolist(), length.tolist(), answers, strict=True)
        ]
        right = good.ravel()
        owner = [name for name in names for _ in range(SAMPLES)]
        keys = {"pool": [""] * rows, "problem_id": owner, "candidate": sample}
        tables: dict[str, dict[str, Any]] = {
            "problems": {
                "problem_id": names,
                "question": [f"{name}: {body[:200]}" for name in names],
                "answer": [gold(number) for number in numbers],
                "solution": [""] * n,
            },
            "rollouts": {
                "problem_id": owner,
                "sample": sample,
                "text": texts,
                "token_ids": lists(ids, offset, tokens),
                "logprob_T": lists(logprobs, offset, tokens),
                "finish": np.where(~right & (rng.random(rows) < 0.1), "length", "stop").tolist(),
            },
            "scores": {**keys, "score": rng.normal(size=rows), "n_tokens": tokens, "fits": [True] * rows},
            "totals": {
                **keys,
                "n_prompt": [PROMPT] * rows,
                "n_tokens": tokens,
                "n_chars": length,
                "nll": tokens * rng.gamma(4, 0.1, rows),
                "rank": tokens * 3,
            },
        }
        for name, columns in tables.items():
            schema = schemas[name]
            arrays = [columns[field.name] for field in schema]
            arrays = [
                array if isinstance(array, pa.Array) else pa.array(array, field.type) for array, field in zip(arrays, schema, strict=True)
            ]
            writers[name].write(pa.table(arrays, schema=schema))
    for writer in writers.values():
        writer.__exit__(None, None, None)


def gold(number: int) -> str:
    """A problem's gold answer."""
    return f"{number % 9 + 2}x+{number}" if number % ALGEBRA == 0 else str(number % 997)


def answer(number: int, right: bool) -> str:
    """What a response to it says: the gold answer written in another way, or another answer."""
    if number % ALGEBRA:
        return f"{number % 997 + (not right)}.0"
    return f"{number}+{number % 9 + 2}x" if right else f"{number}-{number % 9 + 2}x"


def lists(values: np.ndarray, offset: np.ndarray, length: np.ndarray) -> pa.Array:
    """A list column of runs of `values` that begin at `offset`, wrapped to its length."""
    flat_N = np.concatenate([values[first : first + size] for first, size in zip(offset % (len(values) // 2), length, strict=True)])
    return pa.ListArray.from_arrays(pa.array(np.r_[0, np.cumsum(length)].astype(np.int32)), pa.array(flat_N))


if __name__ == "__main__":
    run(main)
