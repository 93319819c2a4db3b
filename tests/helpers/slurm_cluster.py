"""A real SLURM on this machine: one controller and a few virtual nodes, owned by the test run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

CONF = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool/%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.%n.pid
SlurmctldLogFile={dir}/log/slurmctld.log
SlurmdLogFile={dir}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerParameters=bf_interval=1,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
MinJobAge=3600
MaxArraySize={max_array}
KillWait=2
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
"""


def installed() -> bool:
    """Whether SLURM's daemons and clients are here."""
    return all(shutil.which(name) for name in ("slurmctld", "slurmd", "sbatch", "squeue"))


def free_ports(count: int) -> int:
    """The first of `count` consecutive free ports; each process that runs tests looks elsewhere."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for first in range(21000 + 1000 * process, 60000, count + 1):
        held = []
        try:
            for port in range(first, first + count):
                one = socket.socket()
                held.append(one)
                one.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    raise RuntimeError("no free ports")


class Cluster:
    """slurmctld and `nodes` slurmd as children of this process."""

    def __init__(self, root: Path, nodes: int = 2, cpus: int = 4, max_array: int = 1001) -> None:
        self.root = root
        self.names = [f"127.0.0.{11 + index}" for index in range(nodes)]
        self.port = free_ports(nodes + 1)
        self.host = socket.gethostname().split(".")[0]
        for name in ("state", "spool", "log"):
            (root / name).mkdir(parents=True, exist_ok=True)
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        lines = [
            f"NodeName={name} NodeHostname={self.host} NodeAddr=127.0.0.1 Port={self.port + 1 + index} CPUs={cpus} RealMemory=8000 Gres=gpu:a100:2"
            for index, name in enumerate(self.names)
        ]
        self.conf = root / "slurm.conf"
        self.conf.write_text(CONF.format(host=self.host, port=self.port, user=user, dir=root, nodes="\n".join(lines), max_array=max_array))
        gres = ["AutoDetect=off", *(f"NodeName={name} Name=gpu Type=a100 File=/dev/null,/dev/zero" for name in self.names)]
        (root / "gres.conf").write_text("\n".join(gres) + "\n")
        self.env = dict(os.environ, SLURM_CONF=str(self.conf))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Starts everything and waits until all nodes are idle."""
        self.start_controller(clean=True)
        for name in self.names:
            self.start_node(name)
        self.wait_for(lambda: self.run("sinfo", "-h", "-N", "-o", "%t").split().count("idle") == len(self.names), "idle nodes")

    def start_controller(self, clean: bool = False) -> None:
        log = (self.root / "log" / "ctld.out").open("ab")
        flags = ["-D", "-c"] if clean else ["-D"]
        self.processes["controller"] = subprocess.Popen(["slurmctld", *flags], env=self.env, stdout=log, stderr=log)
        self.wait_for(self._answers, "the controller")

    def start_node(self, name: str) -> None:
        log = (self.root / "log" / f"{name}.out").open("ab")
        self.processes[name] = subprocess.Popen(["slurmd", "-D", "-N", name], env=self.env, stdout=log, stderr=log)

    def stop_controller(self) -> None:
        self.processes["controller"].terminate()
        self.processes["controller"].wait()

    def crash_node(self, name: str) -> None:
        """kill -9 of a slurmd and every step below it, as when a machine dies."""
        process = self.processes[name]
        process.kill()
        process.wait()
        for name_of_step in ("slurmstepd", ""):
            for pid in self._mine(name, name_of_step):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _mine(self, node: str, command: str) -> list[int]:
        """Processes of this cluster: step daemons (whose environment names no node), or whatever ran on a node."""
        found = []
        for entry in filter(lambda entry: entry.name.isdigit(), Path("/proc").iterdir()):
            try:
                environ, cmdline = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
            except OSError:
                continue
            here = f"SLURM_CONF={self.conf}".encode() in environ
            if here and (command.encode() in cmdline if command else f"SLURMD_NODENAME={node}".encode() in environ):
                found.append(int(entry.name))
        return found

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=0.2).close()
        except OSError:
            return False
        return True

    def run(self, *args: str, check: bool = True) -> str:
        """A command on this cluster."""
        return subprocess.run(args, env=self.env, capture_output=True, text=True, check=check, timeout=120).stdout

    def wait_for(self, done, what: str, timeout: float = 60.0) -> None:  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + timeout
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout:.0f} s for {what}; squeue says:\n{self.run('squeue', '-t', 'all', check=False)}")
            time.sleep(0.1)

    def cancel_all(self) -> None:
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        self.run("scancel", "-u", user, check=False)
        try:
            self.wait_for(lambda: not self.run("squeue", "-h", check=False).strip(), "an empty queue", 30)
        except TimeoutError:
            pass

    def stop(self) -> None:
        """Ends jobs, then nodes, then the controller, and whatever they left."""
        self.cancel_all()
        for name in [*self.names, "controller"]:
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        mark = f"SLURM_CONF={self.conf}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if mark in (entry / "environ").read_bytes():
                        os.kill(int(entry.name), signal.SIGKILL)
                except OSError:
                    continue
