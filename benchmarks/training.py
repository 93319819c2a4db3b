"""The training engine's figures, against plain torch and TRL's SFTTrainer in the same run.

    python -m benchmarks.training [PART …] [--objective sft|dft|both] [--quick] [--device cuda] [--data DIR]

Parts: loss, trl, overhead, packing, flat, startup; all of them where none is named. Each body runs in a process of its own,
so that memory and imports do not mix; on CPU one thread works and CPU seconds count, unless --threads says otherwise. `--quick` makes the shapes small enough for a shared machine.
Lengths are those of the MATH-500 problems and their solutions (three characters a token). "Bytes" are the peak above
weights, gradients and AdamW's moments. TRL recomputes activations by default; here neither side does, or with
`--checkpointing` both. On a GPU, `trl` measures Qwen2.5-1.5B's shape in bfloat16; ours fills the memory, so bytes say nothing there.
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

from benchmarks.common import DATA, Check, Measure, conclude, need, run

SMALL = {"hidden": 256, "layers": 4, "vocabulary": 151_936}
QWEN_1_5B = {
    "hidden": 1536,
    "layers": 28,
    "vocabulary": 151_936,
    "heads": 12,
    "kv_heads": 2,
    "intermediate": 8960,
    "tied": True,
}
LOSS = {
    "cuda": {"t": 8192, "h": 1536, "v": 151_936},
    "cpu": {"t": 4096, "h": 256, "v": 50_000},
    "quick": {"t": 1024, "h": 128, "v": 20_000},
}
"""Targets, width and vocabulary of the loss layer alone."""
PARTS = ("loss", "trl", "overhead", "packing", "flat", "startup")
MFU = 0.45
ABOVE_PRODUCTS = 1.15
"""The loss layer may take so many times the seconds of its matrix products, which no exact gradient can do without."""
COLD_S, WARM_S = 15.0, 5.0


def body(what: str, **spec: Any) -> dict[str, Any]:
    """One body in a process of its own; its figures."""
    env = {**os.environ, "OMP_NUM_THREADS": str(spec.get("threads", 1)), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "benchmarks.training_bodies", what, json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=env)
    if done.returncode != 0:
        raise RuntimeError(f"{what} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def real_lengths(data: Path, n: int, longest: int) -> list[tuple[int, int]]:
    """(prompt, response) tokens of n MATH-500 problems, cut at `longest`."""
    found = []
    with need(data / "math500.jsonl").open(encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            prompt = min(longest // 2, 30 + len(row["problem"]) // 3)
            found.append((prompt, max(8, min(longest - prompt, len(row["solution"]) // 3))))
    return (found * (1 + n // len(found)))[:n]


def loss(args: argparse.Namespace) -> tuple[list[Measure], list[Check]]:
    cuda = args.device == "cuda"
    shape = LOSS["cuda" if cuda else "quick" if args.quick else "cpu"]
    common = {"device": args.device, "dtype": "bfloat16" if cuda else "float32", "threads": args.threads, "repeats": 3, **shape}
    products = body("loss", way="products", objective="sft", **common)["seconds"]
    measures = []
    for objective in args.objectives:
        figures = {way: body("loss", way=way, objective=objective, **common) for way in ("ours", "plain")}
        ours, plain = figures["ours"], figures["plain"]
        measures += [
            Measure(f"loss layer {objective}, time, its three products alone", "s", ours["seconds"], products, 1 / ABOVE_PRODUCTS, "lower"),
            Measure(f"loss layer {objective}, time, plain torch", "s", ours["seconds"], plain["seconds"], 1.0, "lower"),
            Measure(f"loss layer {objective}, memory, plain torch", "bytes", ours["bytes"], plain["bytes"], 8.0, "lower"),
        ]
    return measures, []


def trl(args: argparse.Namespace) -> tuple[list[Measure], list[Check]]:
    cuda = args.device == "cuda"
    shape: dict[str, Any] = QWEN_1_5B if cuda else SMALL
    batch, steps, warm = (64, 8, 2) if cuda else (4, 3, 1) if args.quick else (8, 3, 1)
    longest = 4096 if cuda else 512
    lengths = real_lengths(args.data, batch * steps, longest)
    common = {
        "shape": shape,
        "lengths": lengths,
        "device": args.device,
        "dtype": "bfloat16" if cuda else "float32",
        "warm": warm,
        "threads": args.threads,
        "checkpointing": args.checkpointing,
    }
    measures, checks = [], []
    for objective in args.objectives:
        mine = body(
            "ours",
            objective=objective,
            batch=batch,
            zero=args.zero,
            rows=batch,
            attention=args.attention,
            **common,
        )
        rows = 4 if cuda or args.quick else 8
        peer = {"objective": objective, "steps": steps, "max_length": longest}
        default = body("trl", packing=None, rows=rows, accumulation=batch // rows, **peer, **common)
        # rows are packed to max_length, so that a packed row stands for several examples
        mean = sum(p + r for p, r in lengths) / len(lengths)
        per_step = max(1, round(batch * mean / longest))
        packed = [
            {"way": way} | body("trl", packing=way, rows=rows_packed, accumulation=max(1, per_step // rows_packed), **peer, **common)
            for way, rows_packed in (("bfd", 1), ("bfd", min(4, per_step)), ("wrapped", min(4, per_step)))
        ]
        best = max(packed, key=lambda figures: figures["tokens_per_s"])
        measures += [
            Measure(f"{objective}, TRL as it comes", "tokens/s", mine["tokens_per_s"], default["tokens_per_s"], 2.0),
            Measure(f"{objective}, TRL's best packing ({best['way']})", "tokens/s", mine["tokens_per_s"], best["tokens_per_s"], 1.3),
        ]
        if cuda:
            mfu = mine["flops"] / mine["seconds"] / args.peak_flops
            checks.append(Check(f"{objective}, MFU", mfu >= MFU, f"{mfu:.3f} ({mine['attention']}, up to {mine['rows']} rows at once)"))
        else:
            measures.append(Measure(f"{objective}, memory beyond the weights'", "bytes", mine["bytes"], default["bytes"], 4.0, "lower"))
    return measures, checks


def overhead(args: argparse.Namespace) -> tuple[list[Measure], list[Check]]:
    found = body("overhead", repeats=30 if args.quick else 105)
    print("CPU ms a step:", {name: round(value, 2) for name, value in found.items()})
    return [
        Measure(f"engine overhead, ZeRO {stage}", "CPU ms/step", found[f"stage{stage}"], found["bare"], 1 / allowed, "lower")
        for stage, allowed in ((0, 1.10), (1, 1.25))
    ], []


def packing(args: argparse.Namespace) -> tuple[list[Measure], list[Check]]:
    from qup.training.packing import Cost, pack, pad

    lengths = [sum(pair) for pair in real_lengths(args.data, 256 * 20, 4096)]
    equal, before, padded = [], [], []
    for start in range(0, len(lengths), 256):
        batch = lengths[start : start + 256]
        layout = pack(batch, 8, 4096, Cost())
        filled = [row for row in layout.rows if row]
        equal.append(sum(batch) / (len(layout.rows) * layout.length))
        before.append(sum(batch) / (len(filled) * layout.length))
        padded.append(sum(batch) / sum(4 * length for turn in pad(batch, 8, 4) for _, length in turn))
    found = f"{min(equal):.4f} at worst of {len(equal)} steps; padded by length groups of 4: {min(padded):.4f}"
    return [], [
        Check("useful tokens, 8 ranks in equal step", min(equal) >= 0.95, found),
        Check("useful tokens, before equalising", min(before) >= 0.97, f"{min(before):.4f}"),
    ]


def flat(args: argparse.Namespace) -> tuple[list[Measure], list[Check]]:
    sizes = [500, 1000, 2000] if args.quick else [1000, 4000, 32000]
    found = body("flat", sizes=sizes)
    costs = [found[str(n)] for n in sizes]
    spread = max(costs) / min(costs) - 1
    shown = ", ".join(f"{n}: {cost:.1f}" for n, cost in zip(sizes, costs, strict=True))
    return [], [Check("cost a token, whole runs (CPU µs)", spread <= 0.2, f"{shown}; spread {spread:.1%} (±10 % is 20 %)")]


def startup(args: argparse.Namespace) -> tuple[list[Measure], list[Check]]:
    with tempfile.TemporaryDirectory() as folder:
        body("cold", folder=f"{folder}/first")
        began = time.perf_counter()
        body("cold", folder=f"{folder}/cold")
        cold = time.perf_counter() - began
        warm = body("warm", folder=f"{folder}/warm")
    return [], [
        Check("a tiny run from a new interpreter", cold <= COLD_S, f"{cold:.1f} s of {COLD_S:g}"),
        Check("a tiny run in a warm worker", warm["status"] == 0 and warm["seconds"] <= WARM_S, f"{warm['seconds']:.1f} s of {WARM_S:g}"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--objective", choices=("sft", "dft", "both"), default="both")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of loss and trl, on both sides; with one, CPU seconds count")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="small shapes; the targets are meant for the full ones")
    parser.add_argument("--data", type=Path, default=DATA, help="where the real files lie")
    parser.add_argument("--zero", type=int, choices=(0, 1, 2, 3), default=None, help="ZeRO stage beside TRL; 0 on CPU, 1 on a GPU")
    parser.add_argument("--attention", default="auto", help="trainer.attention on a GPU; TRL's side has sdpa")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations, on both sides")
    args = parser.parse_args()
    args.objectives = ("sft", "dft") if args.objective == "both" else (args.objective,)
    if args.zero is None:
        args.zero = 1 if args.device == "cuda" else 0
    if args.device == "cuda":
        from qup.training.metrics import peak_flops

        args.peak_flops = peak_flops("cuda:0") or float("inf")
    measures: list[Measure] = []
    checks: list[Check] = []
    for part in args.parts or PARTS:
        new_measures, new_checks = globals()[part](args)
        measures += new_measures
        checks += new_checks
    return conclude("training", measures, checks, parts=list(args.parts or PARTS), quick=args.quick, device=args.device)


if __name__ == "__main__":
    run(main)
