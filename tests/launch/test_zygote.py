"""The process that stages are forked from."""

import json
import os
import subprocess
import sys

SCRIPT = """
import json, os, sys
from pathlib import Path
from qup.launch.local import zygote

zygote.GPUS = sys.argv[1:]
zygote.preload()
for name in zygote.WHEN_IDLE:
    getattr(zygote, name)()
from transformers import conversion_mapping
print(json.dumps({
    "threads": [Path("/proc/self/task", task, "comm").read_text().strip() for task in os.listdir("/proc/self/task")],
    "deepspeed": "deepspeed" in sys.modules,
    "engine": "torch._inductor.compile_fx" in sys.modules,
    "patterns": bool(conversion_mapping._checkpoint_conversion_mapping_cache),
}))
"""


def imported(*gpus: str) -> dict[str, object]:
    """What such a process holds after a while, on a machine with these device files."""
    command = [sys.executable, "-c", SCRIPT, *gpus]
    done = subprocess.run(command, env=dict(os.environ, OMP_NUM_THREADS="1"), stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_stage_finds_its_imports_made_and_no_thread_was_started() -> None:
    """A fork would copy a lock that another thread holds. Arrow's allocator has a thread, and handlers for forks of its own."""
    found = imported()
    assert not [name for name in found.pop("threads") if not name.startswith("python") and name != "jemalloc_bg_thd"]
    assert found == {"deepspeed": True, "engine": True, "patterns": True}


def test_where_there_is_a_gpu_nothing_looks_for_it_before_the_fork() -> None:
    found = imported(os.devnull)
    assert (found["deepspeed"], found["patterns"]) == (False, True)
