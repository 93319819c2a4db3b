"""A stand-in for a stage's computation, with the launcher, store and graph left real.

It notes each run in $QUP_TEST_CONTROL/runs.jsonl and does what $QUP_TEST_CONTROL/<kind>.json says:
{"sleep": seconds, "wait": true: until $QUP_TEST_CONTROL/<kind>.go is there, "raise": text, "kill": true, "once": true, "weights": true: writes a folder of them}.
"""

import json
import os
import signal
import time
from pathlib import Path


def _control():
    return Path(os.environ["QUP_TEST_CONTROL"])


def _note(kind, ctx, event):
    weights = len(list((ctx.shared.parent / "train").glob("*/model")))
    entry = {
        "kind": kind,
        "key": ctx.key,
        "event": event,
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "pid": os.getpid(),
        "weights": weights,
    }
    line = json.dumps(entry) + "\n"
    with (_control() / "runs.jsonl").open("a") as stream:
        stream.write(line)


def _orders(kind):
    path = _control() / f"{kind}.json"
    try:
        orders = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    if orders.get("once"):
        path.unlink(missing_ok=True)
    return orders


def behave(kind, ctx):
    """Obeys the orders for this kind, ending early where asked to stop."""
    _note(kind, ctx, "began")
    orders = _orders(kind)
    steps = int(orders.get("sleep", 0) * 20)
    done_path = ctx.work / "steps-done"
    done = int(done_path.read_text()) if done_path.exists() else 0
    for step in range(done, steps):
        time.sleep(0.05)
        ctx.progress(step + 1, steps, "steps")
        done_path.write_text(str(step + 1))
        if ctx.stopping():
            _note(kind, ctx, "stopped")
        ctx.check()
    while orders.get("wait") and not (_control() / f"{kind}.go").exists():
        time.sleep(0.05)
        if ctx.stopping():
            _note(kind, ctx, "stopped")
        ctx.check()
    if "raise" in orders:
        raise RuntimeError(orders["raise"])
    if orders.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if "allocate_mb" in orders:
        bytearray(orders["allocate_mb"] << 20)
    if orders.get("weights"):
        (ctx.out / "model").mkdir()
        (ctx.out / "model" / "weights").write_text(ctx.key)
    (ctx.out / "result.txt").write_text(f"{kind} {orders.get('same', ctx.key)}\n")
    _note(kind, ctx, "ended")
    return {"n": 1, "total": 1.0, "benchmarks": {}, "resumed_at": 0}
