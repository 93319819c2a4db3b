"""Artifacts by stage and key on a shared file system."""

from __future__ import annotations

import errno
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qup.errors import CorruptArtifact, LeaseLost, StoreError
from qup.files import file_sha256, write_json, write_text
from qup.store.artifact import Artifact
from qup.store.lease import Lease, read_lease

MIN_FREE_BYTES = 64 << 20
OTHER_FOLDERS = ("studies", "shared", "corrupt", "code", "queue")
"""What lies in a store beside one folder for each stage kind."""
PACKAGES = ("torch", "transformers", "deepspeed", "datasets", "pyarrow", "numpy", "tokenizers", "sympy", "mpmath", "hydra-core", "submitit")


@cache
def package_versions() -> dict[str, str]:
    """Installed versions of what results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_writable(folder: Path, setting: str) -> None:
    """Makes the folder that a setting names, and raises StoreError where nothing can be written there."""
    probe = folder / f".probe.{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0" * 4096)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreError(f"{setting}={folder}: the disk is full; free space or choose another {setting}") from None
        raise StoreError(f"{setting}={folder}: not writable ({error.strerror}); choose a directory you may write to") from None
    finally:
        try:
            probe.unlink(missing_ok=True)
        except OSError:
            pass


@dataclass(frozen=True)
class Record:
    """What goes into a manifest beside the data."""

    stage: str
    version: int
    key: str
    fields: Any
    inputs: dict[str, dict[str, str]]
    """name → {stage, key, digest}."""
    code: str
    identity: str
    """Digest of stage, version, fields and input digests: equal work by whatever way."""
    study: str = ""


class Store:
    """A folder of artifacts; safe for many processes on many nodes."""

    def __init__(self, root: Path | str, lease_s: float = 60.0) -> None:
        self.root = Path(root).absolute()
        self.lease_s = lease_s
        self.set_aside: list[Path] = []
        """Where this object has put corrupt artifacts."""

    def check_writable(self) -> None:
        """Raises StoreError where nothing can be written here, before anything is spent."""
        check_writable(self.root, "store.dir")
        free = shutil.disk_usage(self.root).free
        if free < MIN_FREE_BYTES:
            raise StoreError(
                f"store.dir={self.root}: only {free >> 20} MiB left on this disk; at least {MIN_FREE_BYTES >> 20} MiB are needed"
            )

    def path(self, stage: str, key: str) -> Path:
        """Where an artifact lies once published."""
        return self.root / stage / key

    def work(self, stage: str, key: str) -> Path:
        """What an unfinished stage keeps across kills."""
        return self.root / stage / f"{key}.work"

    def lease_path(self, stage: str, key: str) -> Path:
        return self.root / stage / f"{key}.lease"

    @property
    def shared(self) -> Path:
        """What outlives stages and is shared by studies."""
        return self.root / "shared"

    @property
    def studies(self) -> Path:
        """One registration a study: what it needs, which gc keeps."""
        return self.root / "studies"

    @property
    def corrupt(self) -> Path:
        """What was set aside."""
        return self.root / "corrupt"

    def stage_folders(self) -> list[Path]:
        """The folders that artifacts lie in, one a stage kind."""
        there = sorted(self.root.iterdir()) if self.root.is_dir() else []
        return [folder for folder in there if folder.is_dir() and folder.name not in OTHER_FOLDERS]

    def get(self, stage: str, key: str) -> Artifact | None:
        """The published artifact, or None. A corrupt one raises CorruptArtifact."""
        return Artifact.load(stage, key, self.path(stage, key))

    def get_sound(self, stage: str, key: str) -> Artifact | None:
        """As `get`, but a corrupt one is set aside and counts as missing."""
        try:
            return self.get(stage, key)
        except CorruptArtifact:
            self.quarantine(stage, key)
            return None

    def exists(self, stage: str, key: str) -> bool:
        return (self.path(stage, key) / "manifest.json").exists()

    def holder(self, stage: str, key: str) -> dict[str, Any] | None:
        """Who computes this stage at the moment, with its progress."""
        return read_lease(self.lease_path(stage, key))

    def find(self, stage: str, identity: str) -> Artifact | None:
        """An artifact made by equal work, under whatever key."""
        try:
            key = (self.root / stage / ".identity" / identity).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        return self.get_sound(stage, key)

    def acquire(self, stage: str, key: str, label: dict[str, Any], stopping: Callable[[], bool], poll_s: float = 0.2) -> Lease | None:
        """Takes the lease on a stage, waiting for whoever holds it; None where it got published meanwhile or we were asked to stop."""
        lease = Lease(self.lease_path(stage, key), self.lease_s, label)
        while not stopping():
            if self.exists(stage, key):
                return None
            if lease.acquire():
                if self.exists(stage, key):
                    lease.release()
                    return None
                for stale in (self.root / stage).glob(f".{key}.out.*"):
                    shutil.rmtree(stale, ignore_errors=True)
                return lease
            time.sleep(poll_s)
        return None

    def draft(self, stage: str, key: str) -> Path:
        """A fresh folder for a stage's output, published by renaming it."""
        out = self.root / stage / f".{key}.out.{secrets.token_hex(6)}"
        out.mkdir(parents=True)
        return out

    def publish(self, out: Path, record: Record, metrics: dict[str, Any], lease: Lease, facts: dict[str, Any]) -> Artifact:
        """Makes `out` the artifact. Create-once: where another process was first, ours is discarded.

        Raises LeaseLost where the lease was taken over.
        """
        from qup.store.digest import data_digest  # pyarrow, which planning does without

        files = {
            path.relative_to(out).as_posix(): {"size": path.stat().st_size, "sha256": file_sha256(path)}
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }
        manifest = {
            **vars(record),
            "digest": data_digest(out),
            "files": files,
            "metrics": metrics,
            "packages": package_versions(),
            "host": platform.node(),
            **facts,
        }
        for path in out.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        out.chmod(0o755)
        write_json(out / "manifest.json", manifest)
        return self._put(out, record, lease)

    def adopt(self, source: Artifact, record: Record, lease: Lease) -> Artifact | None:
        """Publishes equal work found under another key, by hard links where the file system has them.

        None where its weights were taken away meanwhile.
        """
        out = self.draft(record.stage, record.key)
        for name in source.manifest["files"]:
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source.path / name, target)
            except OSError:
                try:
                    shutil.copy2(source.path / name, target)
                except FileNotFoundError:
                    shutil.rmtree(out, ignore_errors=True)
                    return None
        manifest = dict(source.manifest, key=record.key, fields=record.fields, inputs=record.inputs, study=record.study)
        manifest["adopted_from"] = source.manifest.get("adopted_from") or source.key
        write_json(out / "manifest.json", manifest)
        return self._put(out, record, lease)

    def _put(self, out: Path, record: Record, lease: Lease) -> Artifact:
        final = self.path(record.stage, record.key)
        try:
            lease.check()
            os.rename(out, final)
        except LeaseLost:
            shutil.rmtree(out, ignore_errors=True)
            raise
        except OSError as error:
            shutil.rmtree(out, ignore_errors=True)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        index = self.root / record.stage / ".identity" / record.identity
        write_text(index, record.key)
        shutil.rmtree(self.work(record.stage, record.key), ignore_errors=True)
        artifact = self.get(record.stage, record.key)
        if artifact is None:
            raise StoreError(f"{record.stage}/{record.key} vanished right after it was published")
        return artifact

    def quarantine(self, stage: str, key: str) -> Path | None:
        """Sets a corrupt artifact aside, so that it is computed anew and the bad one can be looked at."""
        source = self.path(stage, key)
        target = self.corrupt / f"{stage}-{key}-{int(time.time())}-{secrets.token_hex(2)}"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(source, target)
        except FileNotFoundError:
            return None
        self.set_aside.append(target)
        return target

    def artifacts(self) -> Iterator[Artifact]:
        """Every published artifact that can be read; corrupt ones are passed over."""
        for folder in self.stage_folders():
            for entry in sorted(folder.iterdir()):
                if entry.is_dir() and not entry.name.startswith(".") and not entry.name.endswith(".work"):
                    try:
                        artifact = Artifact.load(folder.name, entry.name, entry)
                    except CorruptArtifact:
                        continue
                    if artifact is not None:
                        yield artifact
