"""How many weights a student has: from its files, or from what its name on the hub says."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from qup.config.paths import is_commit, local
from qup.config.schema import Model
from qup.models.load import gguf_path

ITEM_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a weight, by dtype."""
_NAMED = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)
_BITS = re.compile(r"[-_.](?:I?Q(\d)|(?:B?F)(16|32))", re.IGNORECASE)


def parameters(model: Model) -> float | None:
    """Weights of a student that is not the lab's; None where neither files nor name tell.

    A directory's are counted in the headers of its safetensors, a GGUF file's estimated by its size and the bits of a
    weight that its name tells. A hub name's are those of its files in the hub's cache, else what the name says.
    """
    file = gguf_path(model)
    if file is not None:
        return _gguf(file)
    folder = local(model.path)
    if folder is None and (folder := _downloaded(model)) is None:
        named = _NAMED.search(model.path.rpartition("/")[2])
        return int(named[1] or 1) * float(named[2]) * (1e9 if named[3] in "bB" else 1e6) if named else None
    return _gguf(folder / model.gguf_file) if model.gguf_file else _directory(folder)


def _directory(folder: Path) -> float | None:
    files = sorted(folder.glob("*.safetensors"))
    try:
        if files:
            return float(sum(map(_header, files)))
        held = sum(path.stat().st_size for path in folder.glob("pytorch_model*.bin"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return held / ITEM_BYTES.get(dtype, 4) if held else None


def _header(file: Path) -> int:
    """Weights that a safetensors file says it holds: eight bytes with the header's length, and the header as JSON."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(f"{file}: no safetensors file")
        header = json.loads(stream.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _gguf(file: Path) -> float | None:
    """A block of n-bit weights holds scales besides, of about another bit a weight."""
    told = _BITS.search(file.name)
    bits = 9.0 if told is None else float(told[2]) if told[2] else float(told[1]) + 1
    try:
        return file.stat().st_size * 8 / bits
    except OSError:
        return None


def _downloaded(model: Model) -> Path | None:
    """The hub's cache of that commit on this machine; None where it isn't there."""
    if not is_commit(model.content):
        return None
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=model.path, repo_type="model") / "snapshots" / model.content
    return folder if any(folder.glob("*.safetensors")) or (model.gguf_file and (folder / model.gguf_file).exists()) else None
