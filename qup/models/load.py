"""Weights and tokenizers from an artifact, a local directory, a GGUF file, an installed package or the hub."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qup.config.paths import is_commit
from qup.config.paths import local as local_path
from qup.config.schema import Model
from qup.errors import InputError
from qup.files import file_sha256

if TYPE_CHECKING:
    from torch import nn


def gguf_path(model: Model) -> Path | None:
    """The GGUF file that the model is read from, None where it is none."""
    found = local_path(model.path)
    if found is None:
        return None
    if found.suffix == ".gguf":
        return found
    return found / model.gguf_file if model.gguf_file else None


@dataclass(frozen=True)
class Whence:
    """What `from_pretrained` is given."""

    name: str
    revision: str | None = None
    trust_remote_code: bool = False
    gguf_file: str | None = None
    downloaded: bool = False
    """The hub is not asked: what was downloaded before has to do."""

    @property
    def arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if self.revision:
            found["revision"] = self.revision
        if self.gguf_file:
            found["gguf_file"] = self.gguf_file
        if self.downloaded:
            found["local_files_only"] = True
        return found


def whence(model: Model, directory: Path | None) -> Whence:
    """Where the weights lie: `directory` (an artifact's), else `model.path`; a hub name at the commit the plan found."""
    if directory is not None:
        return Whence(str(directory), trust_remote_code=model.trust_remote_code)
    if not model.path:
        raise InputError("model.path is empty: a local directory, a GGUF file or a hub name is valid")
    file = gguf_path(model)
    if file is not None:
        if not file.is_file():
            raise InputError(f"model.path={model.path}: there is no file {file}")
        return Whence(str(file.parent), gguf_file=file.name)
    found = local_path(model.path)
    if found is not None:
        if not found.is_dir():
            raise InputError(f"model.path={model.path}: there is no directory {found}")
        return Whence(str(found), trust_remote_code=model.trust_remote_code)
    commit = model.content if is_commit(model.content) else model.revision
    return Whence(model.path, revision=commit, trust_remote_code=model.trust_remote_code, gguf_file=model.gguf_file)


def load_tokenizer(model: Model, directory: Path | None = None, *, downloaded: bool = False) -> Any:
    """The student's tokenizer; `directory` is an artifact's, else `model.path` says. InputError where there is none.

    With `downloaded` the hub is not asked: what was downloaded before has to do.
    """
    from transformers import AutoTokenizer

    place = replace(placed(model, directory), downloaded=downloaded)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place.name, **place.arguments)
    except Exception as error:  # a malformed tokenizer.json is a bare Exception
        raise InputError(f"model.path={directory or model.path}: no tokenizer could be loaded ({_line(error)})") from None
    _add_bos(tokenizer, place)
    return tokenizer


def _add_bos(tokenizer: Any, place: Whence) -> None:
    """Puts BOS before plain text where the tokenizer's files say so.

    transformers drops `add_bos_token` where it replaces the class that a tokenizer names, as it does for DeepSeekMath's.
    """
    file = tokenizer_file(place, "tokenizer_config.json")
    asked = file is not None and json.loads(file.read_text(encoding="utf-8")).get("add_bos_token") is True
    if asked and tokenizer.bos_token_id is not None and tokenizer("").input_ids[:1] != [tokenizer.bos_token_id]:
        tokenizer.add_bos_token = True


def tokenizer_file(place: Whence, name: str) -> Path | None:
    """A file beside the weights, from a directory or the hub's cache; None where there is none."""
    from transformers.utils import cached_file

    found = cached_file(
        place.name,
        name,
        revision=place.revision,
        local_files_only=place.downloaded,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=not place.downloaded,
    )
    return Path(found) if found else None


def load_model(
    model: Model, directory: Path | None = None, *, device: str | None = "auto", dtype: str | None = None, attention: str | None = None
) -> nn.Module:
    """The student's weights, ready to generate or score.

    `directory` is an artifact's (a lab student, fine-tuned weights), else `model.path` says. `device` "auto" is
    the GPU where there is one and `model.device` allows it; None leaves placement to the caller. `dtype` and
    `attention` replace the model's own settings. A GGUF file is dequantised once and kept in the user's cache.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    place = placed(model, directory)
    arguments = {
        **place.arguments,
        "dtype": getattr(torch, dtype or model.dtype),
        "attn_implementation": attention or model.attention,
    }
    if place.gguf_file:
        from transformers import GgufConfig

        arguments["quantization_config"] = GgufConfig(dequantize=True)
    try:
        loaded = AutoModelForCausalLM.from_pretrained(place.name, **arguments)
    except ImportError as error:
        raise InputError(f"model.path={directory or model.path}: {_line(error)}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"model.path={directory or model.path}: no causal language model could be loaded ({_line(error)})") from None
    if device is not None:
        loaded = loaded.to(pick_device(model.device if device == "auto" else device))
    return loaded.eval()  # type: ignore[no-any-return]


def pick_device(device: str) -> str:
    """`auto` resolved: cuda where there is a GPU, else cpu. InputError where cuda is asked for and there is none.

    On a GPU it also has attention go without plans, for whatever is to be computed there.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("model.device=cuda: this machine has no usable GPU; auto and cpu are valid here")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        no_plans()
    return device


def no_plans() -> None:
    """Has this process's attention never go through cuDNN, which builds a plan for each new length, tenths of a second every time."""
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def context_length(model: Model, config: Any) -> int:
    """Positions for prompt and response together: `model.context`, at most what the model's configuration allows."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    limit = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    if limit is None and model.context is None:
        raise InputError(f"model.context: the configuration of {model.path or model.name} names no limit; set model.context")
    return min(value for value in (model.context, limit) if value is not None)


def load_configs(model: Model, directory: Path | None = None) -> tuple[Any, Any]:
    """Configuration and generation configuration (None where there is none), without weights."""
    from transformers import AutoConfig, GenerationConfig

    place = placed(model, directory)
    try:
        config = AutoConfig.from_pretrained(place.name, **place.arguments)
    except (OSError, ValueError) as error:
        raise InputError(f"model.path={directory or model.path}: no configuration could be loaded ({_line(error)})") from None
    try:
        generation = GenerationConfig.from_pretrained(place.name, revision=place.revision)
    except OSError:
        generation = None
    return config, generation


def placed(model: Model, directory: Path | None = None) -> Whence:
    """`whence`, a local GGUF file replaced by its dequantised copy, which loads a hundred times faster; made on first use."""
    place = whence(model, directory)
    if place.gguf_file is None or not (Path(place.name) / place.gguf_file).is_file():
        return place
    file = Path(place.name) / place.gguf_file
    cache = _cache() / f"{file.stem}-{file_sha256(file)[:16]}"
    if not (cache / "config.json").exists():
        try:
            _dequantise(file, cache)
        except OSError:
            return place
    return Whence(str(cache))


def _dequantise(file: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    place = {"gguf_file": file.name}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **place
        )
        AutoTokenizer.from_pretrained(file.parent, **place).save_pretrained(beside)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(beside)
        try:
            os.rename(beside, target)
        except OSError:
            if not (target / "config.json").exists():
                raise
    except ImportError as error:
        raise InputError(f"{file}: {_line(error)}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _cache() -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "qup" / "gguf"


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
