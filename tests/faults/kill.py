"""Kills a whole study with SIGKILL at random instants and runs it again, until it gets through.

`python -m tests.faults.kill FOLDER --kills 10 --seed 0` runs lab_small undisturbed, then until so many kills have hit
it, and compares cells.csv byte for byte. Exit status 0 where they are equal.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.lab import cells, command, environment, launch


def kill_everything(process: subprocess.Popen[bytes], mark: str) -> None:
    """SIGKILL to the launcher and to every process below it."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue


def disturbed(folder: Path, kills: int, seed: int, longest_s: float) -> list[str]:
    """Runs lab_small in `folder` until so many kills have hit it; returns the table of every study that got through.

    A study that gets through before the kill does not count as hit, and the next one starts from nothing.
    """
    rng = random.Random(seed)
    mark = f"QUP_FAULTS={folder}"
    tables = []
    hits = 0
    while hits < kills:
        process = subprocess.Popen(
            command(folder),
            cwd=folder,
            env=dict(environment(), QUP_FAULTS=str(folder)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=rng.uniform(2.0, longest_s))
        except subprocess.TimeoutExpired:
            hits += 1
            kill_everything(process, mark)
            continue
        assert status == 0
        tables.append(cells(folder))
        for name in ("store", "multirun"):
            shutil.rmtree(folder / name)
    status, out = launch(folder)
    assert status == 0, out
    return [*tables, cells(folder)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    calm, wild = args.folder / "calm", args.folder / "wild"
    calm.mkdir(parents=True)
    wild.mkdir()
    began = time.monotonic()
    status, out = launch(calm)
    assert status == 0, out
    tables = disturbed(wild, args.kills, args.seed, time.monotonic() - began)
    same = set(tables) == {cells(calm)}
    print(f"{args.kills} kills hit, {len(tables)} studies got through; cells.csv {'equal' if same else 'DIFFERENT'}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
