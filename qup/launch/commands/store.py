"""Looking after a store: what is there, whether it is sound, what can go."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from qup.errors import CorruptArtifact, InputError
from qup.pipeline import KINDS
from qup.pipeline.graph import Ref
from qup.store import Artifact, Store
from qup.store.lease import holder_is_dead, read_lease
from qup.study import registered

_KEY = re.compile(r"[0-9a-f]{20}")
_ENTRY = re.compile(r"\.?(trash\.)*[0-9a-f]{20}(\..+)?")
"""An artifact's folder, or what an unfinished or removed one is called."""
_SET_ASIDE = re.compile(r"\w+-[0-9a-f]{20}-.+")
IN_USE_S = 24 * 3600.0
"""A lease whose file has not changed for so long belongs to nobody."""


def list_artifacts(store: Store, console: Console) -> int:
    """One line an artifact."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("artifact", "size", "finished", "seconds", "made for"):
        table.add_column(name, overflow="fold")
    total = count = 0
    for artifact in store.artifacts():
        finished = time.strftime("%Y-%m-%d %H:%M", time.localtime(artifact.manifest.get("finished", 0)))
        size = artifact.size
        total, count = total + size, count + 1
        table.add_row(
            f"{artifact.stage}/{artifact.key}",
            f"{size / 1e6:.2f} MB",
            finished,
            f"{artifact.manifest.get('seconds', 0):.1f}",
            artifact.manifest["study"],
        )
    console.print(table)
    console.print(f"{count} artifacts, {total / 1e6:.1f} MB in {store.root}")
    return 0


def find_artifact(store: Store, name: str) -> Artifact:
    """The artifact `stage/key`, the key possibly shortened; InputError where that names none or several."""
    stage, _, key = name.partition("/")
    found = [artifact for artifact in store.artifacts() if artifact.stage == stage and artifact.key.startswith(key)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{name}: {len(found)} artifacts begin so: {', '.join(artifact.key for artifact in found[:5])}")
    stages = sorted({artifact.stage for artifact in store.artifacts()})
    raise InputError(f"{name}: no such artifact in {store.root}; write stage/key, stages there: {', '.join(stages) or 'none'}")


def show_artifact(store: Store, name: str, console: Console) -> int:
    """The manifest, whole."""
    console.print_json(json.dumps(find_artifact(store, name).manifest))
    return 0


def verify_artifacts(store: Store, console: Console) -> int:
    """Compares every byte; exit status 1 where something is corrupt."""
    sound, corrupt = 0, []
    for folder in [store.root / kind for kind in KINDS]:
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            if not entry.is_dir() or not _KEY.fullmatch(entry.name):
                continue
            try:
                artifact = Artifact.load(folder.name, entry.name, entry)
                if artifact is None:
                    raise CorruptArtifact(folder.name, entry.name, "manifest.json is missing")
                artifact.verify()
                sound += 1
            except CorruptArtifact as error:
                corrupt.append(str(error))
    for line in corrupt:
        console.print(line)
    console.print(f"{sound} sound, {len(corrupt)} corrupt" + ("; the next launch that needs them computes them anew" if corrupt else ""))
    return 1 if corrupt else 0


def needed_refs(store: Store) -> set[Ref]:
    """What registered studies name, results and everything above them."""
    return {ref for study in registered(store) for ref in study.nodes}


def collect_garbage(store: Store, console: Console, *, dry_run: bool) -> int:
    """Removes artifacts and unfinished work that nothing registered or running needs, frozen code of studies that are gone, and what was set aside."""
    known, needed = _registrations(store), needed_refs(store)
    freed = count = 0
    for folder in [store.root / kind for kind in KINDS] + [store.corrupt]:
        ours = _SET_ASIDE if folder == store.corrupt else _ENTRY
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            if not entry.is_dir() or not ours.fullmatch(entry.name):
                continue
            ref = Ref(folder.name, entry.name.lstrip(".").partition(".")[0])
            if folder != store.corrupt and (ref in needed or _in_use(store, ref)):
                continue
            size = sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())
            if not dry_run and not _remove(store, folder, entry, ref, known):
                continue
            freed, count = freed + size, count + 1
            console.print(f"{'would remove' if dry_run else 'removed'} {folder.name}/{entry.name}  {size / 1e6:.2f} MB")
    for entry in _unused_code(store):
        size = sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())
        freed, count = freed + size, count + 1
        console.print(f"{'would remove' if dry_run else 'removed'} code/{entry.name}  {size / 1e6:.2f} MB")
        if not dry_run:
            shutil.rmtree(entry, ignore_errors=True)
    console.print(f"{count} {'would go' if dry_run else 'gone'}, {freed / 1e6:.1f} MB")
    return 0


def _unused_code(store: Store) -> list[Path]:
    """Frozen code that no study's jobs run, and that nobody froze just now."""
    used = {json.loads(path.read_text(encoding="utf-8")).get("code") for path in store.studies.glob("*/slurm/site.json")}
    there = sorted((store.root / "code").glob("*"))
    return [entry for entry in there if entry.is_dir() and str(entry) not in used and time.time() - entry.stat().st_ctime > IN_USE_S]


def _in_use(store: Store, ref: Ref) -> bool:
    path = store.lease_path(*ref)
    leases = [path, *path.parent.glob(f"{ref.key}.worker*.lease")]
    for lease in leases:
        content = read_lease(lease)
        if content is not None and not holder_is_dead(content) and time.time() - lease.stat().st_mtime < IN_USE_S:
            return True
    return False


def _registrations(store: Store) -> dict[Path, int]:
    """Studies' records, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in store.studies.glob("*/study.json")}


def _remove(store: Store, folder: Path, entry: Path, ref: Ref, known: dict[Path, int]) -> bool:
    """Takes an entry away, unless a study that was registered meanwhile needs it.

    Who launches registers and then looks whether all that is stored is still there; here the entry goes first, and the
    registrations are looked at after that. So one of the two sees the other.
    """
    trash = folder / f".trash.{entry.name.lstrip('.')}"
    entry.rename(trash)
    if folder != store.corrupt and _registrations(store) != known and ref in needed_refs(store):
        trash.rename(entry)
        return False
    shutil.rmtree(trash, ignore_errors=True)
    return True
