"""What stages of a store took: the measured side of a plan's estimate."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from qup.files import read_json

RECENT = 20
"""Artifacts of a kind that a rate is taken from."""
UNTOLD_S = 10.0
"""Longest start-up of a stage that did not tell it: a process, imports, tables."""


@dataclass(frozen=True)
class Measured:
    """Medians over recent artifacts of one kind and identity."""

    startup_s: float
    """Seconds before the first unit: imports, weights, servers."""
    unit_s: float | None
    """Seconds a unit after that; None where all were too short to tell."""
    input_tokens: float | None = None
    """Tokens a unit sent to the Oracle or judge; None where none was asked."""
    output_tokens: float | None = None


class Rates:
    """Reads each kind's recent manifests once an identity."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[tuple[str, str], Measured | None] = {}

    def of(self, kind: str, view: Any) -> Measured | None:
        """What stages like this one took, on this machine where any ran here; None where the store has none."""
        known = (kind, identity(view))
        if known not in self._known:
            self._known[known] = self._read(*known)
        return self._known[known]

    def _read(self, kind: str, wanted: str) -> Measured | None:
        found = list(self._like(kind, wanted))
        found = ([manifest for manifest in found if manifest.get("host") == platform.node()] or found)[:RECENT]
        if not found:
            return None
        # a rehearsal's few units say little beside a whole run's many
        largest = max(manifest["units"] for manifest in found)
        found = [manifest for manifest in found if manifest["units"] * 10 >= largest]
        startups = [manifest.get("startup_s") or min(UNTOLD_S, manifest["seconds"]) for manifest in found]
        rates = [(manifest["seconds"] - startup) / manifest["units"] for manifest, startup in zip(found, startups, strict=True)]
        told = [rate for rate in rates if rate > 0]
        return Measured(median(startups), median(told) if told else None, _tokens(found, "input_tokens"), _tokens(found, "output_tokens"))

    def _like(self, kind: str, wanted: str) -> Iterator[dict[str, Any]]:
        """Recent manifests of that kind and identity that were computed and not adopted, newest first."""
        try:
            entries = [entry for entry in os.scandir(self.root / kind) if entry.is_dir()]
        except FileNotFoundError:
            return
        for entry in sorted(entries, key=lambda entry: entry.stat().st_mtime, reverse=True)[: 5 * RECENT]:
            manifest = read_json(Path(entry.path) / "manifest.json") or {}
            if manifest.get("units") and not manifest.get("adopted_from") and identity(manifest["fields"]) == wanted:
                yield manifest


def _tokens(manifests: list[dict[str, Any]], name: str) -> float | None:
    found = [manifest["metrics"][name] / manifest["units"] for manifest in manifests if manifest.get("metrics", {}).get(name)]
    return median(found) if found else None


def identity(view: Any) -> str:
    """What makes two stages of a kind take alike: the model, who is asked, for what. From a view, or a manifest's fields of one."""
    model = _get(view, "model") or _get(view, "reward")
    oracle = _get(view, "oracle") or _get(view, "judge")
    asked = [str(_get(oracle, "backend")), str(_get(oracle, "model"))] if oracle is not None else []
    made = [str(_get(part, "name") or "") for part in (_get(view, "source"), _get(view, "refinement")) if part is not None]
    return "/".join([str(_get(model, "content") or "lab") if model is not None else "", *asked, *made])


def _get(owner: Any, name: str) -> Any:
    return owner.get(name) if isinstance(owner, Mapping) else getattr(owner, name, None)
