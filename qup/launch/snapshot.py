"""The code a study runs, frozen: one copy for equal code, whatever is edited while jobs wait."""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import qup
from qup.errors import QupError
from qup.launch.code import ROOT
from qup.store import Store

NEEDED = ("qup/**/*", "hydra_plugins/qup_*.py")
"""What jobs use; in a checkout whatever else is code and not ignored by git comes along."""


CODE = (".py", ".pyi", ".yaml", ".yml", ".toml", ".cfg", ".json", ".jinja", ".sh", ".txt", ".md")
LARGEST = 1 << 20
"""Bytes of a file that may be code, outside of what jobs use for sure."""


@dataclass(frozen=True)
class Snapshot:
    """A folder to put on PYTHONPATH."""

    path: Path
    digest: str
    commit: str
    left_out: tuple[Path, ...] = ()
    """Files beside the code that are none."""


def _git(*args: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT.parent), *args], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def _is_checkout() -> bool:
    """Whether qup lies at the top of a git work tree, and not, installed, within somebody's."""
    top = _git("rev-parse", "--show-toplevel")
    return top is not None and Path(os.fsdecode(top.strip())).resolve() == ROOT.parent.resolve()


@functools.cache
def own_version() -> dict[str, str]:
    """qup's version, and from a checkout its commit, which says where tracked files were changed since."""
    commit = (_git("rev-parse", "--short=12", "HEAD") or b"").decode().strip() if _is_checkout() else ""
    if not commit:
        return {"qup": qup.__version__}
    changed = _git("diff", "--quiet", "HEAD") is None
    return {"qup": qup.__version__, "commit": f"{commit} with changes" if changed else commit}


def _files() -> list[Path]:
    """Files of the snapshot, relative to the checkout or to where qup is installed."""
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard") if _is_checkout() else None
    if listed is not None:
        names = [Path(os.fsdecode(name)) for name in listed.split(b"\0") if name]
    else:
        beside = [] if (ROOT / "conf").is_dir() else ["conf/**/*"]
        names = [path.relative_to(ROOT.parent) for pattern in (*NEEDED, *beside) for path in ROOT.parent.glob(pattern)]
    return sorted(name for name in set(names) if (ROOT.parent / name).is_file() and "__pycache__" not in name.parts)


def _is_code(name: Path) -> bool:
    """Whether a file goes along: all that jobs use, and of the rest of a checkout what is small and looks like code."""
    if name.parts[0] in ("qup", "conf", "hydra_plugins"):
        return True
    return name.suffix in CODE and (ROOT.parent / name).stat().st_size <= LARGEST


def freeze_code(store: Store) -> Snapshot:
    """Copies the code into the store, once for equal code, with the commit and the diff beside it.

    Raises QupError where files cannot be read.
    """
    everything = _files()
    names = [name for name in everything if _is_code(name)]
    hasher = hashlib.sha256()
    try:
        for name in names:
            data = (ROOT.parent / name).read_bytes()
            hasher.update(f"{name}\0{len(data)}\0".encode())
            hasher.update(data)
    except OSError as error:
        raise QupError(f"the code cannot be frozen: {error}") from None
    digest = hasher.hexdigest()[:16]
    commit = (_git("rev-parse", "HEAD") or b"").decode().strip() if _is_checkout() else ""
    final = store.root / "code" / digest
    if not final.exists():
        draft = store.root / "code" / f".{digest}.{secrets.token_hex(4)}"
        for name in names:
            target = draft / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT.parent / name, target)
        (draft / ".commit").write_text(commit + "\n", encoding="utf-8")
        (draft / ".diff").write_bytes((_git("diff", "HEAD") if commit else None) or b"")
        try:
            draft.rename(final)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            if not final.exists():
                raise
    return Snapshot(final, digest, commit, tuple(name for name in everything if name not in set(names)))
