"""A tracked run: who it is, where its local log lies, and how that log is read."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qup.config.checks import WANDB_NAME, WANDB_TAG
from qup.config.schema import Tracking
from qup.files import write_text

HISTORY, END, SPEC = "history.jsonl", "end.json", "run.json"
_SKIPPED = ("step",)


def run_id(kind: str, identity: str) -> str:
    """The same id for the same artifact, whoever computes it, wherever and however often."""
    return f"{kind}-{hashlib.sha256(f'{kind}/{identity}'.encode()).hexdigest()[:16]}"


def study_folder(store: Path, study: str) -> Path:
    """Where a study's tracked runs lie; outlives its stages."""
    return store / "studies" / study / "wandb"


@dataclass(frozen=True)
class Spec:
    """Everything that a run needs to be shown, apart from its numbers. JSON-able."""

    id: str
    kind: str
    project: str
    entity: str | None
    mode: str
    """online or offline."""
    group: str
    name: str
    tags: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    steps: str | None = None
    """File of per-step figures; the run's own history.jsonl where none."""
    references: Mapping[str, str] = field(default_factory=dict)
    """Name → folder that is logged as an artifact by reference."""

    def save(self, folder: Path) -> None:
        write_text(folder / SPEC, json.dumps(asdict(self), default=str))

    @classmethod
    def load(cls, folder: Path) -> Spec:
        content = json.loads((folder / SPEC).read_text(encoding="utf-8"))
        return cls(**{**content, "tags": tuple(content["tags"])})

    def history(self, folder: Path) -> list[dict[str, Any]]:
        """The per-step figures so far."""
        return read_history(Path(self.steps) if self.steps else folder / HISTORY)


def spec_of(
    tracking: Tracking, *, identity: str, kind: str, labels: Mapping[str, str], config: Mapping[str, Any], steps: Path | None = None
) -> Spec:
    """A run's spec from settings; what `config` hides is hidden already."""
    from qup.tracking.redact import redact

    tags = [*tracking.tags, *(labels[name] for name in ("model", "stream") if labels.get(name))]
    objective = _objective(config)
    if objective:
        tags.append(objective)
    return Spec(
        id=run_id(kind, identity),
        kind=kind,
        project=tracking.project,
        entity=tracking.entity,
        mode=mode_of(tracking),
        group=labels.get("study", ""),
        name=f"{labels.get('cell', identity)} {kind}"[:WANDB_NAME],
        tags=tuple(dict.fromkeys(tag[:WANDB_TAG] for tag in tags)),
        config=redact(dict(config)),
        steps=str(steps) if steps is not None else None,
    )


def _objective(config: Mapping[str, Any]) -> str:
    trainer = config.get("trainer")
    return str(trainer.get("objective", "")) if isinstance(trainer, Mapping) else ""


def mode_of(tracking: Tracking) -> str:
    """online or offline; `auto` and W&B's own variable decide by whether there is a key."""
    if tracking.mode != "auto":
        return tracking.mode
    if os.environ.get("WANDB_MODE", "") in ("offline", "disabled", "dryrun"):
        return "offline"
    return "online" if has_key() else "offline"


def has_key() -> bool:
    """Whether W&B would find a key; the key itself is never read into settings."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc
    from urllib.parse import urlparse

    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError, TypeError):
        return False


def read_history(path: Path) -> list[dict[str, Any]]:
    """Figures by step, ascending, each step once: a requeued stage repeats steps, and the last word counts.

    A torn last line is left out.
    """
    by_step: dict[int, dict[str, Any]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            entry = json.loads(line)
            step = int(entry["step"])
        except (ValueError, KeyError, TypeError):
            continue
        by_step[step] = {name: value for name, value in entry.items() if name not in _SKIPPED and _shown(value)}
    return [{"step": step, **by_step[step]} for step in sorted(by_step)]


def _shown(value: Any) -> bool:
    return isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Figures under dotted names, numbers and short words only: what a summary shows."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif _shown(value) and not (isinstance(value, str) and len(value) > 200):
            found[f"{prefix}{name}"] = value
    return found


def lines_of(entries: Iterable[Mapping[str, Any]]) -> str:
    """As they stand in a history file."""
    return "".join(json.dumps(dict(entry), default=str) + "\n" for entry in entries)
