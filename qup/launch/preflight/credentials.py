"""Endpoints' keys that the stages to run will look for in the environment: looked for before anything is spent."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from qup.config.pools import ORACLE
from qup.config.schema import Oracle, Sampling
from qup.errors import ConfigError, Fault
from qup.launch.plan import Plan, Planned
from qup.pipeline import KINDS, Node, Ref

DEFAULT = Oracle().api_key_env
"""An endpoint of one's own may do without a key as long as no other variable is named."""


def check_keys(plan: Plan, launcher: str, excluded: Collection[Ref] = ()) -> None:
    """Raises ConfigError naming each variable that a stage to run, those `excluded` not, needs and does not find."""
    if faults := missing_keys(plan, launcher, excluded):
        raise ConfigError(faults)


def missing_keys(plan: Plan, launcher: str, excluded: Collection[Ref] = ()) -> list[Fault]:
    """One fault for each setting that names an empty variable, with the stages that stop for it; `where` is the launcher."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for ref, planned in plan.to_run.items():
        for key, section in _endpoints(planned.node) if ref not in excluded else ():
            from qup.oracle.asks import OPENAI, endpoint  # a client, which a study without endpoints does not need

            address, name = endpoint(section.base_url), section.api_key_env
            if (address == OPENAI or name != DEFAULT) and not _given(name, planned, launcher):
                found.setdefault((key, name, address), []).append(f"{ref.kind} {planned.node.label}")
    return [
        Fault(key, name, f"this environment variable holds no key for {address}, which {_listed(stages)} will ask; set it")
        for (key, name, address), stages in found.items()
    ]


def _endpoints(node: Node) -> Iterator[tuple[str, Oracle | Sampling]]:
    """The section of a stage's view that names an endpoint of others, with the setting that names its variable."""
    section = KINDS[node.kind].asked_of(node.view)
    if section is not None and (
        section.backend == "openai" or (section.backend == "vllm" and isinstance(section, Oracle) and section.base_url)
    ):
        kind, teacher = KINDS[node.kind], getattr(node.view, "teacher", ORACLE)
        named = f"teacher.{teacher}" if kind.endpoint == "oracle" and teacher != ORACLE else kind.section or kind.endpoint
        yield f"{named}.api_key_env", section


def _given(name: str, planned: Planned, launcher: str) -> bool:
    """Whether a stage will find the variable: jobs inherit this environment, and their own shell lines may set it."""
    if os.environ.get(name, "").strip():
        return True
    return launcher == "slurm" and planned.resources.where == "job" and any(name in line for line in planned.resources.setup)


def _listed(stages: list[str]) -> str:
    more = f" and {len(stages) - 3} more" if len(stages) > 3 else ""
    return f"{', '.join(stages[:3])}{more}"
