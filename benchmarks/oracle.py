"""The Oracle's client against a server that misbehaves, killed on the way.

    python -m benchmarks.oracle [--requests 10000] [--rate 50] [--kills 3]

A loopback server takes 200 ms an answer, turns 10 % away with 429 and Retry-After whatever their rate, cuts 5 % of the
connections half way through the answer, spoils 1 % of the answers' JSON, and allows `--rate` requests a second; the
client is not told that rate. It runs in a process of its own, gets kill -9 at even intervals, and is started again.

rate      requests the server took within what it allows, a second in which a client was sending, over `--rate`
repeats   answers that the server had to make again; bounded by what was in flight at the kills, and the cut connections
peer      the openai library with its own retries under a semaphore: no store, no pacing, nothing survives a kill
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import Check, Measure, conclude, run
from benchmarks.oracle_server import books, serving
from qup.config.schema import Oracle
from qup.oracle import Ask, open_oracle, read_spent

FAULTS = {"limited": 0.1, "retry_after": 0.5, "cut": 0.05, "malformed": 0.01}
MOST_MB = 200
ROOT = Path(__file__).parents[1]


def questions(count: int) -> Iterator[Ask]:
    """Requests of a realistic length."""
    for n in range(count):
        yield Ask(
            f"p{n}", "refine", [{"role": "system", "content": "Task: refine"}, {"role": "user", "content": f"q{n} " + "x = 1; " * 150}]
        )


def expected(ask: Ask) -> str:
    """The server's answer to it."""
    return f"answer {hashlib.sha256(ask.messages[-1]['content'].encode()).hexdigest()[:12]}"


def client(url: str, folder: Path, count: int, concurrency: int) -> None:
    """One life of the client; prints what it got."""
    logging.basicConfig(level=logging.WARNING)
    oracle = Oracle(backend="openai", model="m", base_url=url, concurrency=concurrency, timeout_s=30)
    got = right = new = 0
    with open_oracle(oracle, folder, ledger=folder / "ledger") as opened:
        for ask, answer in opened.ask(questions(count)):
            got += 1
            right += answer.text == expected(ask)
            new += not answer.from_store
    print(json.dumps({"got": got, "right": right, "new": new}))


def measure(requests: int, rate: float, kills: int, concurrency: int, latency_s: float = 0.2) -> dict[str, Any]:
    """Runs the client to the end through the kills; the figures of the table."""
    marks = [requests * (kill + 1) // (kills + 1) for kill in range(kills)]
    sending = 0.0
    rss = 0
    with serving(latency_s=latency_s, rate=rate, **FAULTS) as url, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        command = [sys.executable, "-m", "benchmarks.oracle", "--client", url, str(folder), str(requests), str(concurrency)]
        for mark in [*marks, None]:
            before, since = books(url).get("requests", 0), None
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
                while process.poll() is None:
                    seen = books(url)
                    now = time.monotonic()
                    if since is None and seen.get("requests", 0) > before:
                        since = now
                    rss = max(rss, _rss(process.pid))
                    if mark is not None and seen["distinct"] >= mark:
                        os.kill(process.pid, signal.SIGKILL)
                        process.wait()
                    time.sleep(0.02)
                sending += time.monotonic() - since if since is not None else 0.0
                assert process.stdout is not None
                output = process.stdout.read()
            if process.returncode != (0 if mark is None else -signal.SIGKILL):
                raise RuntimeError(f"the client ended by itself with status {process.returncode}")
        last = json.loads(output)
        time.sleep(latency_s + 0.1)
        seen, spent = books(url), read_spent(folder / "ledger")
    at_kills = spent.in_doubt - seen.get("cut", 0) - seen.get("malformed", 0)
    return {
        "requests": requests,
        "answers_right": last["right"],
        "lost": requests - last["right"],
        "kills": kills,
        "sends": seen["requests"],
        "limited": seen.get("limited", 0),
        "over_rate": seen.get("over_rate", 0),
        "cut": seen.get("cut", 0),
        "malformed": seen.get("malformed", 0),
        "in_flight_at_kills": at_kills,
        "most_in_flight": seen["most_in_flight"],
        "repeats": seen["repeats"],
        "seconds_sending": round(sending, 2),
        "rate": round(seen["admitted"] / sending / rate, 4),
        "answers_per_second": round(seen["good"] / sending, 2),
        "allowed_per_second": rate,
        "rss_mb": round(rss / 2**20, 1),
    }


def peer(requests: int, rate: float, concurrency: int) -> dict[str, Any]:
    """The openai library alone, with as many in flight and its own retries."""
    import openai

    async def everything(url: str) -> list[Any]:
        gate = asyncio.Semaphore(concurrency)
        async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=8, timeout=30) as api:

            async def one(ask: Ask) -> bool:
                async with gate:
                    answer = await api.chat.completions.create(model="m", messages=ask.messages, max_tokens=4096)  # type: ignore[arg-type]
                return answer.choices[0].message.content == expected(ask)

            return await asyncio.gather(*(one(ask) for ask in questions(requests)), return_exceptions=True)

    with serving(latency_s=0.2, rate=rate, **FAULTS) as url:
        started = time.monotonic()
        results = asyncio.run(everything(url))
        seconds = time.monotonic() - started
        seen = books(url)
    lost = sum(result is not True for result in results)
    return {"requests": requests, "lost": lost, "rate": round(seen["admitted"] / seconds / rate, 4), "repeats": seen["repeats"]}


def _rss(pid: int) -> int:
    """Peak resident bytes of a process so far."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def main() -> int:
    if sys.argv[1:2] == ["--client"]:
        client(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second that the server allows")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=64)
    given = parser.parse_args()
    ours = measure(given.requests, given.rate, given.kills, given.concurrency)
    alone = peer(max(given.requests // 10, 1), given.rate, given.concurrency)
    allowed = f"{ours['repeats']} of {ours['cut']} cut + {ours['in_flight_at_kills']} in flight at {given.kills} kills"
    return conclude(
        "oracle",
        [Measure("requests taken, of those the server allows", "1/s", ours["rate"] * given.rate, given.rate, 0.85)],
        [
            Check("answers lost", ours["lost"] == 0, f"{ours['lost']} of {given.requests}"),
            Check("answers made again", ours["repeats"] <= ours["cut"] + ours["in_flight_at_kills"], allowed),
            Check("in flight at kills", ours["in_flight_at_kills"] <= given.kills * given.concurrency, f"{ours['in_flight_at_kills']}"),
            Check("peak memory", ours["rss_mb"] <= MOST_MB, f"{ours['rss_mb']} MB"),
        ],
        measured=ours,
        openai_library_alone=alone,
    )


if __name__ == "__main__":
    run(main)
