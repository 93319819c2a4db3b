"""Names on the Hugging Face hub become commits at planning."""

from __future__ import annotations

from typing import Any

from qup.config.paths import is_commit
from qup.errors import InputError

TIMEOUT_S = 20.0


class Hub:
    """Asks the hub for commits, each once; where it can't be reached, what was downloaded before tells."""

    def __init__(self, api: Any = None, *, reachable: bool = True) -> None:
        """`api`: what has model_info and dataset_info; huggingface_hub's by default. Not `reachable`: it isn't asked."""
        self._api = api
        self._known: dict[tuple[str, str, str | None], str | None] = {}
        self._reachable = reachable

    def commit(self, kind: str, name: str, revision: str | None) -> str | None:
        """The commit of a model or dataset at a revision; None where nobody can tell. InputError where there is none."""
        if revision is not None and is_commit(revision):
            return revision
        asked = (kind, name, revision)
        if asked not in self._known:
            self._known[asked] = self._ask(kind, name, revision) or _downloaded(kind, name, revision)
        return self._known[asked]

    def _ask(self, kind: str, name: str, revision: str | None) -> str | None:
        if not self._reachable:
            return None
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        if self._api is None:
            from huggingface_hub import HfApi

            self._api = HfApi()
        look = self._api.model_info if kind == "model" else self._api.dataset_info
        try:
            found = look(name, revision=revision, timeout=TIMEOUT_S).sha
        except (HfHubHTTPError, HFValidationError) as error:
            if getattr(getattr(error, "response", None), "status_code", 0) >= 500:
                return None
            at = f" at revision {revision}" if revision else ""
            raise InputError(
                f"{name}: the hub has no such {kind}{at}, or it is not open to you ({str(error).strip().splitlines()[0]})"
            ) from None
        except Exception as error:
            if not isinstance(error, OSError) and not type(error).__module__.startswith(("http", "requests", "urllib")):
                raise
            self._reachable = False
            return None
        return str(found) if found else None


def _downloaded(kind: str, name: str, revision: str | None) -> str | None:
    """The commit that a branch or tag had when it was last downloaded here."""
    from pathlib import Path

    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    ref = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind) / "refs" / (revision or "main")
    try:
        found = ref.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return found if is_commit(found) else None
