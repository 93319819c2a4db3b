"""Sending an exported folder to the Hugging Face hub: into a repository asked for by name, private unless said otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from qup.errors import InputError, QupError

TOKEN = "HF_TOKEN"
"""The environment variable that holds the token; no other place is looked at."""
NOTHING = f"nothing was written; is ${TOKEN} right?"
UNWRITTEN = (".gitattributes",)
"""What the hub itself puts into a new repository."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class Target:
    """A repository that a folder may be sent to."""

    repo: str
    kind: str
    """model or dataset."""
    public: bool
    token: str = field(repr=False)
    api: Any = field(repr=False)


def target(repo: str, kind: str, *, public: bool = False, api: Any = None) -> Target:
    """Looks at everything that can be refused before a file is written or sent; `api` is huggingface_hub's HfApi by default.

    Raises InputError for a name that the hub would refuse, where $HF_TOKEN is not set, and where the repository is there and
    not empty, or is public and was not to be; QupError where the hub does not know the token or can't be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
        why = "" if "/" in repo else "whose it is has to be said"
    except HFValidationError as error:
        why = str(error).partition(":")[0]
    if why:
        raise InputError(f"--push={repo}: {why}; OWNER/NAME is valid, of letters, digits, '-', '_' and '.'")
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise InputError(f"--push={repo}: ${TOKEN} is not set; it takes a token with the right to write, and is looked for nowhere else")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise InputError(f"--push={repo}: $HF_HUB_OFFLINE says that the hub is not to be asked; unset it for this command")
    found = Target(repo, kind, public, token, api or HfApi(token=token))
    _asked(found, NOTHING, found.api.whoami)
    try:
        there = _asked(found, NOTHING, lambda: found.api.repo_info(repo, repo_type=kind), but=RepositoryNotFoundError)
    except RepositoryNotFoundError:
        return found
    held = [entry.rfilename for entry in there.siblings or [] if entry.rfilename not in UNWRITTEN]
    if held:
        raise InputError(f"--push={repo}: is there already and not empty ({len(held)} files); give a new name")
    if not there.private and not public:
        raise InputError(f"--push={repo}: is there already and public; make it private, give a new name, or say --public")
    return found


def push(to: Target, folder: Path, message: str) -> str:
    """Makes the repository and sends the folder; returns its address. QupError where the hub does not take it, with what to do then."""
    undone = f"nothing is lost: {folder} is whole, and `hf upload {to.repo} {folder} --repo-type {to.kind}` sends it again"
    visibility = {"private": not to.public, "exist_ok": True}
    _asked(to, undone, lambda: to.api.create_repo(to.repo, repo_type=to.kind, **visibility))
    _asked(to, undone, lambda: to.api.upload_folder(folder_path=folder, repo_id=to.repo, repo_type=to.kind, commit_message=message))
    return f"{to.api.endpoint}/{'datasets/' if to.kind == 'dataset' else ''}{to.repo}"


def _asked(to: Target, hint: str, ask: Callable[[], Found], but: type[Exception] | tuple[()] = ()) -> Found:
    """What the hub answers; QupError with its own words where it refuses or can't be reached. `but` is let through."""
    try:
        return ask()
    except but:
        raise
    except Exception as error:
        if not isinstance(error, OSError | RuntimeError | ValueError) and not type(error).__module__.startswith(("http", "requests")):
            raise
        said = " ".join(str(error).replace(to.token, "…").split())[:300] or type(error).__name__
        raise QupError(f"--push={to.repo}: the hub at {to.api.endpoint} refuses or can't be reached ({said}); {hint}") from None
