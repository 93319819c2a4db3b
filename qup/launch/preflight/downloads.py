"""What a plan needs from the hub is fetched before its jobs are submitted: nodes run offline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from qup.config.paths import is_commit, local
from qup.config.schema import Benchmark, Model, Oracle, Problems, Reward
from qup.errors import QupError
from qup.launch.plan import Plan


@dataclass(frozen=True, order=True)
class Wanted:
    """A hub repository at a commit."""

    kind: str
    """model or dataset."""
    name: str
    revision: str
    subset: str = ""
    split: str = ""
    file: str = ""
    """The one weights file that is read, where it is one (GGUF)."""


def wanted(plan: Plan) -> list[Wanted]:
    """Everything on the hub that the stages to run read, each once."""
    found: dict[Wanted, None] = {}
    for planned in plan.to_run.values():
        found.update(dict.fromkeys(_hub_names(planned.node.view)))
    return sorted(found)


def _hub_names(value: Any) -> Iterator[Wanted]:
    if isinstance(value, Model | Reward) and value.lab is None:
        yield from _repository("model", value, file=getattr(value, "gguf_file", None) or "")
    elif isinstance(value, Problems | Benchmark) and value.lab is None:
        yield from _repository("dataset", value, subset=value.subset or "", split=value.split)
    elif isinstance(value, Oracle) and value.backend == "vllm" and value.base_url is None and value.revision and local(value.model) is None:
        yield Wanted("model", value.model, value.revision)
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _hub_names(inner)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _hub_names(getattr(value, field.name))


def _repository(kind: str, section: Any, **more: str) -> Iterator[Wanted]:
    if is_commit(section.content) and local(section.path) is None:
        yield Wanted(kind, section.path, section.content, **more)


def fetch(one: Wanted) -> None:
    """Into the hub's cache on this machine, where jobs look for it."""
    if one.kind == "dataset":
        from qup.data.formats import read_hub

        read_hub(one.name, [], subset=one.subset or None, split=one.split, revision=one.revision, limit=1)
        return
    from huggingface_hub import snapshot_download

    patterns = [one.file, "*.json", "*.jinja", "*.model", "*.txt"] if one.file else None
    snapshot_download(one.name, revision=one.revision, allow_patterns=patterns, ignore_patterns=["*.pth", "*.onnx", "*.msgpack", "*.h5"])


def download(plan: Plan, say: Callable[[str], None], fetch: Callable[[Wanted], None] = fetch) -> None:
    """Fetches all that is wanted. QupError names what could not be had; nothing has been submitted then."""
    for one in wanted(plan):
        say(f"fetching {one.kind} {one.name} at {one.revision[:12]}")
        try:
            fetch(one)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise QupError(
                f"{one.kind} {one.name} at {one.revision} can't be downloaded ({reason}); nothing was submitted. "
                "Nodes run offline, so it has to be in the hub's cache here (HF_HOME, which nodes must see), or be given by a local path"
            ) from None
