"""Verification of answers: ours against math-verify called one by one, on real traces with duplicates as they come.

python -m benchmarks.answers [--data DIR]                 the figures
python -m benchmarks.answers --disagreements FILE         also lists, as Markdown, where we and a data set's own verdicts differ
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import DATA, Check, Measure, conclude, need, run, timed
from qup.answers.comparison import decide
from qup.answers.extraction import extract
from qup.answers.golds import gold
from qup.answers.verifier import CORRECT, Verifier
from qup.config.schema import EXTRACTIONS

EXPLAINED = {
    ("4:30 \\text{ p.m.}", "\\text{4:30 p.m.}"): "the same time of day; math-verify reads 4:30 as a ratio and the text as a name",
}
"""Pairs on which we differ from math-verify and are right; docs/answers.md says more."""
ALGEBRA, SEED = 150, 0
HOSTILE_TIMEOUT_S = 2.0
HOSTILE_LIMIT_S = 180.0
MATH, GSM8K = "math_cot_60_rm_scores.jsonl", "gsm8k_model_solutions_400.jsonl"


@dataclass(frozen=True)
class Trace:
    """One real trace: what we read out of it, the gold answer, and what the data set's own grader said."""

    file: str
    row: int
    sample: int
    answer: str
    gold: str
    theirs: bool
    their_answer: str = ""
    their_gold: str = ""


def traces(data: Path) -> Iterator[Trace]:
    """Every trace of both files, in their order."""
    for row, problem in enumerate(_rows(data / MATH)):
        answer = gold(problem["solution"], "boxed")
        for sample, (text, verdict, pred) in enumerate(zip(problem["code"], problem["score"], problem["pred"], strict=True)):
            yield Trace(MATH, row, sample, extract(text, "dft"), answer, verdict, pred, problem["gt"])
    for row, problem in enumerate(_rows(data / GSM8K)):
        answer = extract(problem["ground_truth"], "gsm8k")
        solutions = [value for value in problem.values() if isinstance(value, dict)]
        for sample, solution in enumerate(solutions):
            yield Trace(GSM8K, row, sample, extract(solution["solution"], "gsm8k"), answer, solution["is_correct"])


def hostile() -> list[tuple[str, str]]:
    """Answers made to hang, crash or fill memory, each beside a gold answer."""
    texts = {
        "10^{10^{10}}": "10^{10^{10}}+x",
        "9^{9^{9^{9}}}": "3x",
        "(10^{7})!": "7x",
        "((999)!)!": "y",
        "9999999!!": "x+1",
        "\\binom{10^9}{5\\cdot 10^8}": "2x",
        "\\sum_{n=1}^{10^{12}} \\frac{1}{n}": "x",
        "\\int e^{x^{x}} dx": "x^{x}",
        "\\int_{0}^{1} x^{x^{x}} \\sin x^{x} dx": "\\sum_{i=1}^{2000} \\sum_{j=1}^{2000} \\frac{1}{i+j}",
        "\\sum_{i=1}^{2000} \\sum_{j=1}^{2000} \\frac{1}{i+j}": "x",
        "\\sqrt{\\prod_{i=1}^{2000} \\sum_{j=1}^{2000} \\sin i^{j}}": "1",
        "\\lfloor 10^{9000} \\pi \\rfloor": "\\lceil 10^{9000} \\pi \\rceil - 1",
        "\\zeta(1000001) + \\Gamma(10^{9})": "2x",
        "\\frac{1}{2": "\\frac12",
        "{" * 1500: "2x",
        "(" * 900 + "x" + ")" * 900: "2x",
        "x^{" * 300 + "2" + "}" * 300: "2x",
        "\\sqrt{" * 200 + "x" + "}" * 200: "2x",
        "\\frac{" * 250 + "1" + "}{2}" * 250: "2x",
        "9" * 1900 + "x": "2x",
        "1e999999999": "2x",
        "7" * 1_000_000: "2x",
        "x\x00y": "xy",
        "\ud800 + x": "x",
        "\\text{" + "a" * 1900 + "}": "2x",
        "+".join(f"x^{{{n}}}" for n in range(200)): "2x",
        "\\left[" * 200: "2x",
        "\\begin{pmatrix}" * 50 + "1": "2x",
    }
    return list(texts.items())


def hostile_responses() -> list[str]:
    """Responses made to hang or crash the reading of an answer."""
    return [
        "\\boxed{" * 150_000,
        "\\boxed{" * 1000 + "7" + "}" * 1000,
        "\\boxed{1}" * 1000,
        "{" * 1_000_000,
        "\\boxed " * 200_000,
        "the answer is " * 70_000,
        "answer " + " " * 1_000_000,
        "final answer is $" * 60_000,
        "1," * 500_000,
        "9" * 1_000_000,
        "-" * 1_000_000,
        "\\" * 1_000_001,
        "#" * 1_000_000,
        "####" * 250_000 + " x",
        "\x00" * 1_000_000,
        "\ud800" * 1_000_000,
        "\n" * 1_000_000,
    ]


def one_by_one(pairs: list[tuple[str, str]]) -> list[bool]:
    """The peer: parse and verify for each pair, as math-verify's README has it."""
    from math_verify import parse, verify

    return [bool(verify(parse(f"${right}$"), parse(f"${left}$"))) for left, right in pairs]


def algebra(data: Path) -> list[tuple[str, str]]:
    """Different gold answers of MATH-500 set against each other, only pairs that take computer algebra; none twice."""
    golds = sorted({gold(row["answer"], "plain") for row in _rows(data / "math500.jsonl")})
    undecided = [(left, right) for left in golds for right in golds if left < right and decide(left, right) is None]
    return random.Random(SEED).sample(undecided, ALGEBRA)


def disagreements(found: list[Trace], verdicts: list[str]) -> str:
    """A Markdown table of the traces on which we and the data set's grader differ; same answers of a problem are one row."""
    rows: dict[tuple[object, ...], int] = {}
    for trace, verdict in zip(found, verdicts, strict=True):
        if (verdict in CORRECT) != trace.theirs:
            said = "right" if trace.theirs else "wrong"
            key = (trace.file, trace.row, trace.answer, trace.gold, verdict, trace.their_answer, trace.their_gold, said)
            rows[key] = rows.get(key, 0) + 1
    head = "| file | row | traces | our answer | our gold | our verdict | their answer | their gold | they say |\n" + "|---" * 9 + "|"
    lines = [f"| {k[0]} | {k[1]} | {n} | `{k[2]}` | `{k[3]}` | {k[4]} | `{k[5]}` | `{k[6]}` | {k[7]} |" for k, n in rows.items()]
    return "\n".join([head, *lines])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.answers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real files (default: %(default)s)")
    parser.add_argument("--disagreements", type=Path, help="write the list of disagreements here")
    options = parser.parse_args()
    logging.disable(logging.WARNING)

    found = list(traces(options.data))
    real, hard = [(trace.answer, trace.gold) for trace in found], algebra(options.data)
    one_by_one(real[:1])
    with Verifier() as verifier:
        verdicts, ours_s = timed(lambda: verifier.verdicts(real))
        asked = verifier.counts["symbolic"]
        _, start_s = timed(lambda: verifier.verdicts([("x+1", "1+x")]))
    with Verifier(workers=1) as verifier:
        verifier.verdicts([("x+1", "1+x")])
        hard_verdicts, hard_ours_s = timed(lambda: verifier.verdicts(hard))
    theirs, peer_s = timed(lambda: one_by_one(real))
    hard_theirs, hard_peer_s = timed(lambda: one_by_one(hard))
    together = zip(real + hard, verdicts + hard_verdicts, theirs + hard_theirs, strict=True)
    differing = {pair: ours for pair, ours, peer in together if (ours in CORRECT) != peer}
    unexplained = [pair for pair in differing if pair not in EXPLAINED]
    with Verifier(HOSTILE_TIMEOUT_S) as verifier:
        survived, hostile_s = timed(lambda: verifier.verdicts(hostile()))
        cut_off = verifier.counts["timeouts"]
        alive = verifier.verdicts([("x+1", "1+x")]) == ["symbolic"]
    _, reading_s = timed(lambda: [extract(text, mode) for text in hostile_responses() for mode in EXTRACTIONS])
    if options.disagreements:
        options.disagreements.write_text(disagreements(found, verdicts) + "\n", encoding="utf-8")

    checks = [
        Check("same verdicts", not unexplained, f"{len(differing)} kinds of pair differ, {len(unexplained)} unexplained"),
        Check("hostile answers", alive and hostile_s < HOSTILE_LIMIT_S, f"{len(survived)} in {hostile_s:.1f} s, {cut_off} cut off"),
        Check(
            "hostile responses", reading_s < HOSTILE_LIMIT_S, f"{len(hostile_responses())} × {len(EXTRACTIONS)} modes in {reading_s:.1f} s"
        ),
    ]
    measures = [
        Measure("real traces", "pairs/s", len(real) / ours_s, len(real) / peer_s, 5.0),
        Measure("different golds, all to computer algebra, one child", "pairs/s", len(hard) / hard_ours_s, len(hard) / hard_peer_s, 1.0),
    ]
    facts = {
        "pairs": len(real),
        "asked_of_children": asked,
        "child_start_s": round(start_s, 2),
        "differing": [[*pair, ours] for pair, ours in differing.items()],
    }
    return conclude("answers", measures, checks, **facts)


def _rows(path: Path) -> list[dict]:
    with need(path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    run(main)
