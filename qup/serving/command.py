"""The command line of a server: where vLLM is, and its flags."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qup.config.schema import Vllm
from qup.errors import Fault, InputError

OURS = ("model", "host", "port", "uds", "served-model-name", "api-key")
"""Flags that qup sets itself, for it has to find and to recognise its server."""
CHANGING = (
    *("dtype", "quantization", "kv-cache-dtype", "load-format", "max-model-len", "rope-scaling", "rope-theta", "hf-overrides"),
    *("revision", "code-revision", "tokenizer", "tokenizer-mode", "tokenizer-revision", "trust-remote-code", "enable-lora", "lora-modules"),
    *("chat-template", "default-chat-template-kwargs", "generation-config", "override-generation-config", "seed", "logits-processors"),
    *("runner", "convert", "pooler-config", "override-pooler-config", "speculative-config", "logprobs-mode", "config"),
)
"""Flags by which answers change: they stand beside the model, where they enter its stages' keys."""
INSTALL = "vLLM has an environment of its own (docs/serving.md says how it is made): name it by vllm.command, or choose another backend"


def find(vllm: Vllm) -> list[str]:
    """What stands before `serve`. Raises InputError where there is no such program."""
    if not vllm.command:
        beside = Path(sys.executable).with_name("vllm")
        found = str(beside) if os.access(beside, os.X_OK) else shutil.which("vllm")
        if found is None and not vllm.setup:
            raise InputError(f"vllm.command: there is no vllm beside {sys.executable}, nor on PATH; {INSTALL}")
        return [found or "vllm"]
    try:
        program, *rest = shlex.split(vllm.command)
    except ValueError as error:
        raise InputError(f"vllm.command={vllm.command}: {error}") from None
    place = Path(program).expanduser()
    if not rest and place.is_dir():
        place = next((path for path in (place / "vllm", place / "bin" / "vllm") if path.is_file()), place / "bin" / "vllm")
    elif not rest and re.fullmatch(r"python[\d.]*", place.name):
        place = place.with_name("vllm")
    if place.parent == Path():
        found = shutil.which(program)
        if found is None and not vllm.setup:
            raise InputError(f"vllm.command={vllm.command}: there is no program {program} on PATH; {INSTALL}")
        return [found or program, *rest]
    if not os.access(place, os.X_OK) or place.is_dir():
        raise InputError(f"vllm.command={vllm.command}: there is no program {place}; {INSTALL}")
    return [str(place.absolute()), *rest]


def line(vllm: Vllm, model: str, flags: Mapping[str, Any]) -> list[str]:
    """The whole command of a server; `vllm.setup` runs before it, in the same process. Raises InputError as `find`."""
    command = [*find(vllm), "serve", model, *rendered(flags)]
    if not vllm.setup:
        return command
    return ["bash", "-c", "\n".join(["set -e", *vllm.setup, 'exec "$@"']), "qup", *command]


def merged(*flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags with their dashes in the middle, later ones in place of earlier ones."""
    return {name.lstrip("-").replace("_", "-"): value for some in flags for name, value in some.items()}


def rendered(flags: Mapping[str, Any]) -> list[str]:
    """Flags as words: true is the bare flag, false its `--no-`, none nothing, a list or mapping JSON."""
    words: list[str] = []
    for name, value in flags.items():
        if value is True or value is False:
            words.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            words += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    return words


def flag_faults(key: str, flags: Mapping[str, Any], *, changing: bool) -> list[Fault]:
    """What is wrong with flags that a user gave; `changing`: whether they may change answers."""
    faults = []
    for name, value in merged(flags).items():
        if name in OURS:
            faults.append(Fault(f"{key}.{name}", value, "is set by qup, which has to find and to recognise its server"))
        elif not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            faults.append(Fault(f"{key}.{name}", value, "must be a long flag of vllm serve without its dashes; enforce-eager"))
        elif name in CHANGING and not changing:
            why = f"changes the answers: give it as rollouts.sampling.vllm.{name}, oracle.vllm.{name} or the like, where it enters the key"
            faults.append(Fault(f"{key}.{name}", value, why))
    return faults


def count_gpus(resources: str) -> int:
    """GPUs this process was given: those visible to it, else what was asked for (`2`, `a100:2`); at least 1."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        return len(visible.split(","))
    number = resources.rpartition(":")[2]
    return max(int(number), 1) if number.isdigit() else 1
