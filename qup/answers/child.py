"""The process in which math-verify runs: `python -m qup.answers.child TIMEOUT_S`.

A request is one line of JSON, a list of [answer, gold]; the reply is one line `0` or `1` for each pair, in order.
The kernel ends the process by SIGPROF when a pair has used TIMEOUT_S seconds of CPU, so a comparison that never returns
to Python is cut off too. The process leaves when its input closes or its parent is gone, not by the signals meant for its parent.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY = 1 << 30
"""Bytes of address space beyond what the libraries take."""
PARSED = 4096
"""Parsed answers kept, so that a gold answer is parsed once for all answers to its problem."""
POLL_S = 2.0
POINTS, STEP = (0.7310585786, 1.9459101491), 0.3819660113
TOLERANCE = 1e-5
"""Relative to the values; math-verify takes numbers for equal that agree to six decimals."""


def comparer() -> Callable[[str, str], bool]:
    """`same(answer, gold)` by math-verify, its own time-outs off and its unit stripping too: that one takes 4t for 4."""
    from functools import lru_cache

    from latex2sympy2_extended.math_normalization import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    rules = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="last")
    target = [LatexExtractionConfig(normalization_config=rules)]

    @lru_cache(maxsize=PARSED)
    def parsed(text: str) -> Any:
        return parse(f"${text}$", extraction_config=target, parsing_timeout=None)

    def same(answer: str, gold: str) -> bool:
        left, right = parsed(answer), parsed(gold)
        if left and right and refuted(left[0], right[0]):
            return False
        return bool(verify(right, left, timeout_seconds=None))

    return same


def refuted(left: Any, right: Any) -> bool:
    """Whether two expressions have clearly different values at each of two points: spares simplifying their difference.

    False where either is not an expression with values (a set, an equation, a name), or has none at a point.
    """
    from sympy import Expr, Symbol, UnevaluatedExpr

    for side in (left, right):
        if not isinstance(side, Expr) or isinstance(side, Symbol) or side.has(UnevaluatedExpr):
            return False
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    for point in POINTS:
        values = {symbol: point + index * STEP for index, symbol in enumerate(symbols)}
        try:
            at_left, at_right = (complex(side.evalf(15, subs=values)) for side in (left, right))
        except (TypeError, ValueError, ArithmeticError, AttributeError):
            return False
        gap, scale = abs(at_left - at_right), 1 + abs(at_left) + abs(at_right)
        if not (math.isfinite(scale) and gap > TOLERANCE * scale):
            return False
    return True


def main(timeout_s: float) -> None:
    replies, requests = _private_pipes()
    logging.disable(logging.CRITICAL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    parent = os.getppid()
    same = comparer()
    same("\\frac{1}{2}", "\\frac{2}{4}")
    _limit_memory()
    os.dup2(1, 2)
    os.write(replies, b"ready\n")
    pending = b""
    while True:
        while b"\n" not in pending:
            if not select.select([requests], [], [], POLL_S)[0]:
                if os.getppid() != parent:
                    return
                continue
            piece = os.read(requests, 1 << 16)
            if not piece:
                return
            pending += piece
        line, _, pending = pending.partition(b"\n")
        for answer, gold in json.loads(line):
            signal.setitimer(signal.ITIMER_PROF, timeout_s)
            try:
                verdict = same(answer, gold)
            except (Exception, RecursionError):
                verdict = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            os.write(replies, b"1\n" if verdict else b"0\n")


def _private_pipes() -> tuple[int, int]:
    """The pipes to the parent, out of reach of whatever a library prints or reads."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)
    return replies, requests


def _limit_memory() -> None:
    try:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except FileNotFoundError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = size + MEMORY if hard == resource.RLIM_INFINITY else min(size + MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main(float(sys.argv[1]))
