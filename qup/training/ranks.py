"""The processes of one training run: who I am, the group we form, and noticing when one falls silent."""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from qup.files import write_text
from qup.models.load import no_plans

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""How long ranks wait for one that is alive but busy (writing a large model). Silent ones are noticed sooner, see Watch."""


@dataclass(frozen=True)
class World:
    """One rank's place among all."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: str = "cpu"

    @property
    def first(self) -> bool:
        return self.rank == 0


def pick_device(wanted: str, local_rank: int) -> str:
    """`cpu`, or `cuda:<local rank>` where it is wanted (`auto`, `cuda`) and there."""
    import torch

    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    return f"cuda:{local_rank % max(1, torch.cuda.device_count())}"


def _device_rank(world: World) -> int:
    """What DeepSpeed takes for LOCAL_RANK: the number of our device, which is 0 where a scheduler shows each task its own GPU alone."""
    return int(world.device.partition(":")[2] or 0) if world.device.startswith("cuda") else world.local_rank


def quietly(what: str, take_down: Callable[[], object]) -> None:
    """Takes something down at a run's end, of which nothing depends any more: a fault is logged and hides neither success nor error."""
    try:
        take_down()
    except Exception as error:
        logging.getLogger("qup.train").warning("%s could not be taken down: %s", what, error)


def quiet_deepspeed() -> None:
    """Readies DeepSpeed's import: errors only on its logger, and no building of its shared-memory collectives on CPU."""
    import warnings

    os.environ.setdefault("DS_ACCELERATOR", "cpu" if not _has_cuda() else "cuda")
    warnings.filterwarnings("ignore", message="`torch.distributed", category=FutureWarning)
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def warm_deepspeed() -> None:
    """As quiet_deepspeed, with what its engine imports as it is built: three seconds."""
    quiet_deepspeed()
    importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@dataclass(frozen=True)
class Meeting:
    """A folder in which rank 0 writes where it listens: it binds a port that is free at that moment, so none is guessed beforehand."""

    folder: Path
    host: str
    patience_s: float = 300.0

    def store(self, world: World) -> Any:
        """The key-value store of the group."""
        from torch.distributed import TCPStore

        place = self.folder / "master"
        if world.first:
            made = TCPStore(self.host, 0, world.size, is_master=True, timeout=COLLECTIVE_TIMEOUT, wait_for_workers=False)
            write_text(place, f"{self.host}:{made.port}")
            return made
        until = time.monotonic() + self.patience_s
        while not place.exists():
            if time.monotonic() > until:
                raise TimeoutError(f"rank 0 has not said within {self.patience_s:g} s where it listens ({place})")
            time.sleep(0.05)
        host, _, port = place.read_text(encoding="utf-8").rpartition(":")
        return TCPStore(host, int(port), world.size, is_master=False, timeout=COLLECTIVE_TIMEOUT, wait_for_workers=False)


def _meeting_place(world: World, meeting: Meeting | None) -> dict[str, Any]:
    from torch.distributed import HashStore

    if meeting is not None:
        return {"store": meeting.store(world)}
    return {"store": HashStore()} if world.size == 1 else {"init_method": "env://"}


@contextmanager
def process_group(world: World, meeting: Meeting | None = None) -> Iterator[None]:
    """The default group of torch.distributed and DeepSpeed's view of it, taken down again at the end.

    One rank needs no port; several find each other by `meeting`, or by MASTER_ADDR and MASTER_PORT without one.
    """
    import torch
    from deepspeed.comm import comm
    from torch import distributed

    backend = "nccl" if world.device.startswith("cuda") else "gloo"
    if world.device.startswith("cuda"):
        torch.cuda.set_device(world.device)
        no_plans()
    _compute_on(world.device)
    os.environ["LOCAL_RANK"] = str(_device_rank(world))
    distributed.init_process_group(
        backend, rank=world.rank, world_size=world.size, timeout=COLLECTIVE_TIMEOUT, **_meeting_place(world, meeting)
    )
    try:
        comm.init_distributed(backend, auto_mpi_discovery=False, verbose=False, timeout=COLLECTIVE_TIMEOUT)
        yield
    finally:
        quietly("DeepSpeed's groups", forget_groups)
        quietly("the process group", distributed.destroy_process_group)


def _compute_on(device: str) -> None:
    """Has DeepSpeed compute on the kind of device that this rank has: left alone, it takes a GPU wherever it finds one."""
    from deepspeed.accelerator import get_accelerator, set_accelerator

    kind = "cuda" if device.startswith("cuda") else "cpu"
    if get_accelerator().device_name() == kind:
        return
    if kind == "cuda":
        from deepspeed.accelerator.cuda_accelerator import CUDA_Accelerator as Accelerator
    else:
        from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator as Accelerator
    set_accelerator(Accelerator())


def forget_groups() -> None:
    """Makes DeepSpeed forget the groups of a world that ends, so that this process can form another."""
    from deepspeed.comm import comm
    from deepspeed.utils import groups

    comm.cdb = None
    for name, value in list(vars(groups).items()):
        if name.startswith("_") and name.isupper() and not name.startswith("__") and not isinstance(value, str):
            setattr(groups, name, {} if isinstance(value, dict) else None)


class Watch:
    """Says `alive` for this rank and calls `on_silence(rank)` once another has been silent for `timeout_s`.

    It beats from threads of its own, so a rank busy for minutes (saving, compiling) is alive, and one that was stopped,
    killed or cut off is not. With one rank it does nothing.
    """

    def __init__(self, world: World, timeout_s: float, on_silence: Callable[[int], None]) -> None:
        self.world, self.timeout_s, self.on_silence = world, timeout_s, on_silence
        self.interval = max(0.2, min(5.0, timeout_s / 10))
        self.ended, self.broken = threading.Event(), threading.Event()
        self.threads: list[threading.Thread] = []
        self.heard: dict[int, float] = {}

    def __enter__(self) -> Watch:
        if self.world.size > 1:
            from torch.distributed.distributed_c10d import _get_default_store

            self.heard = dict.fromkeys(range(self.world.size), time.monotonic())
            for name, work in (("beat", self._beat), ("judge", self._judge)):
                arguments = (_get_default_store().clone(),) if name == "beat" else ()
                self.threads.append(threading.Thread(target=work, args=arguments, daemon=True, name=f"rank-{name}"))
                self.threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the watch: from here on ranks may leave."""
        self.ended.set()
        for thread in self.threads:
            thread.join(timeout=2 * self.interval)

    def _beat(self, store: Any) -> None:
        """Says `alive` and listens. Talks to the store, which lives in rank 0, so it hangs or fails where that rank does."""
        others = [rank for rank in range(self.world.size) if rank != self.world.rank]
        last: dict[int, bytes] = {}
        beat = 0
        while not self.ended.wait(self.interval):
            beat += 1
            try:
                store.set(_key(self.world.rank), str(beat))
                present = [rank for rank in others if store.check([_key(rank)])]
                values = store.multi_get([_key(rank) for rank in present]) if present else []
            except Exception:
                self.broken.set()
                return
            for rank, value in zip(present, values, strict=True):
                if last.get(rank) != value:
                    last[rank], self.heard[rank] = value, time.monotonic()
            self.heard[self.world.rank] = time.monotonic()

    def _judge(self) -> None:
        while not self.ended.wait(self.interval):
            if self.broken.is_set():
                # a moment's grace, because rank 0 may have left in good order
                if not self.ended.wait(self.interval):
                    self.on_silence(0)
                return
            now = time.monotonic()
            silent = [rank for rank, heard in self.heard.items() if now - heard > self.timeout_s]
            if silent:
                # not hearing oneself means that the store, and with it rank 0, does not answer
                self.on_silence(0 if self.world.rank in silent else silent[0])
                return


def _key(rank: int) -> str:
    return f"qup/beat/{rank}"
