"""A stage frozen in a file: everything a process on another machine needs to run it, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qup.config.fingerprint import build, plain
from qup.config.schema import Resources
from qup.files import write_json
from qup.launch.plan import Planned
from qup.pipeline.graph import Ref
from qup.pipeline.kinds import KINDS
from qup.store import Store


@dataclass(frozen=True)
class Job:
    """One stage run of one study."""

    study: str
    study_dir: Path
    store: Path
    lease_s: float
    ref: Ref
    label: str
    view: Any
    inputs: dict[str, Ref]
    hints: dict[str, Ref]
    resources: Resources
    units: float = 0.0
    """Planned amount of work, in the kind's own unit; with the seconds it took it makes the next plan's rate."""
    replace: bool = False
    """A published artifact of this key is to be computed anew: other code made it, or its weights are gone."""
    own_code: bool = False
    """Neither equal work nor unfinished work that other code made is to be taken."""
    packages: dict[str, str] = field(default_factory=dict)
    """Versions the job must find; empty: any."""

    @property
    def stem(self) -> str:
        return f"{self.ref.kind}-{self.ref.key}"

    @property
    def path(self) -> Path:
        return self.study_dir / "jobs" / f"{self.stem}.json"

    @property
    def log(self) -> Path:
        return self.study_dir / "logs" / f"{self.stem}.log"

    @property
    def failure(self) -> Path:
        """Written where a run failed, taken away when the next one starts."""
        return self.study_dir / "failed" / f"{self.stem}.json"

    def save(self) -> Path:
        """Freezes the job."""
        write_json(
            self.path,
            {
                **vars(self),
                "study_dir": str(self.study_dir),
                "store": str(self.store),
                "view": plain(self.view),
                "resources": plain(self.resources),
            },
            compact=True,
            sync=False,
        )
        return self.path

    @classmethod
    def load(cls, path: Path) -> Job:
        content = json.loads(path.read_text(encoding="utf-8"))
        ref = Ref(*content["ref"])
        read: dict[str, Any] = {
            "study_dir": Path(content["study_dir"]),
            "store": Path(content["store"]),
            "ref": ref,
            "view": build(KINDS[ref.kind].view, content["view"]),
            "resources": build(Resources, content["resources"]),
        }
        read |= {part: {name: Ref(*value) for name, value in content[part].items()} for part in ("inputs", "hints")}
        return cls(**content | read)


def job_of(planned: Planned, study: str, study_dir: Path, store: Store, packages: Mapping[str, str] | None = None) -> Job:
    """The job that runs a planned stage."""
    node = planned.node
    return Job(
        study=study,
        study_dir=study_dir,
        store=store.root,
        lease_s=store.lease_s,
        ref=node.ref,
        label=node.label,
        view=node.view,
        inputs=node.inputs,
        hints=node.hints,
        resources=planned.resources,
        units=planned.cost.units,
        replace=planned.replace,
        own_code=planned.own_code,
        packages=dict(packages or {}),
    )
