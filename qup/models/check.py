"""What can be told about a student without loading it: on the login node, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qup.config.paths import local, missing
from qup.config.schema import Benchmark, Model, Oracle, Problems, Reward
from qup.data.sets import questions
from qup.errors import Fault, InputError
from qup.files import read_json
from qup.lab.chains import longest_question
from qup.models.apart import of_model
from qup.models.load import context_length, gguf_path, load_configs, load_tokenizer
from qup.models.tokens import without_room
from qup.text.templates import TEMPLATES

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
ONE_LABEL = ("skywork_v2", "sequence_classification")
"""Formats whose score is the one label of a sequence-classification model; without a word on labels transformers makes two."""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")
_LISTED = 10


def check_model(model: Model) -> list[Fault]:
    """Everything wrong with the student's directory that shows without loading it; hub names are taken on trust.

    Checked: it exists, has configuration, weights and a tokenizer that belong together, and the chat template that
    `model.template` needs.
    """
    if model.lab is not None:
        return []
    faults = _remote_code(model)
    folder, file = local(model.path), gguf_path(model)
    if not model.path:
        faults.append(Fault("model.path", "", "a local directory, a GGUF file or a hub name is needed"))
    elif file is not None:
        faults += _gguf(model, file)
    elif folder is not None:
        faults += _directory(model, folder)
    return faults


def check_reward(reward: Reward, key: str) -> list[Fault]:
    """What is wrong with a reward model's directory that shows without loading it; hub names are taken on trust."""
    folder = local(reward.path)
    if reward.lab is not None or folder is None or not reward.path or not folder.exists():
        return []
    config = read_json(folder / "config.json") if folder.is_dir() else None
    if config is None:
        return [Fault(f"{key}.path", reward.path, "a directory with config.json, weights and tokenizer is valid, or a hub name")]
    labels = len(config.get("id2label") or {}) or config.get("num_labels") or 2
    if reward.format in ONE_LABEL and labels != 1:
        return [Fault(f"{key}.path", reward.path, f"a model with {labels} labels; a reward model has one (num_labels=1)")]
    return []


def check_oracle(oracle: Oracle, folder: Path, key: str) -> list[Fault]:
    """What is wrong with a directory that is to be served as Oracle."""
    if read_json(folder / "config.json") is None:
        return [Fault(f"{key}.model", oracle.model, "a directory with config.json, weights and tokenizer is valid, or a hub name")]
    if not oracle.chat_template and not _chat_template(folder, read_json(folder / "tokenizer_config.json") or {}):
        why = f"has no chat template, so it is a base model and can't be asked; choose an instruct model, or set {key}.chat_template"
        return [Fault(f"{key}.model", oracle.model, why)]
    return []


def check_room(model: Model, data: Problems | Benchmark, least: int, key: str, of: str) -> list[Fault]:
    """Problems whose prompt leaves fewer than `least` tokens of the context, a sampling's `min_new_tokens`.

    `key` is where that sampling stands, `of` where `data` does. Told where tokenizer and problems are at hand: of a hub name, or a GGUF file, which has to be dequantised first, the
    stage tells it before anything is drawn. Loads the tokenizer only for a prompt that may be too long.
    """
    if model.lab is None and (gguf_path(model) is not None or local(model.path) is None or check_model(model)):
        return []
    if isinstance(data, Problems) and data.too_long == "exclude":
        return []
    try:
        if model.lab is not None:
            from qup.lab.tokenizer import MAX_LENGTH, build

            context = min(model.context or MAX_LENGTH, MAX_LENGTH)
            if data.lab is not None and longest_question(data.lab.max_steps) + 16 + least <= context:
                return []
            bad = _without_room(build(), model, data, context, least)
        else:
            bad, context = of_model(_room_of, model, data, least)
    except InputError as error:
        return [Fault("model.path", model.path, str(error).removeprefix(f"model.path={model.path}: "))]
    return [Fault(f"{key}.min_new_tokens", least, f"{of}: {no_room(bad, context, str(least))}")] if bad else []


def _room_of(model: Model, data: Problems | Benchmark, least: int) -> tuple[list[tuple[str, int]], int]:
    """What `without_room` gives of a model by path, and its context."""
    context = context_length(model, load_configs(model)[0])
    return _without_room(load_tokenizer(model), model, data, context, least), context


def _without_room(tokenizer: Any, model: Model, data: Problems | Benchmark, context: int, least: int) -> list[tuple[str, int]]:
    asked = questions(data)
    return without_room(tokenizer, model.template, [one for one, _ in asked], [question for _, question in asked], context, least)


def no_room(bad: Sequence[tuple[str, int]], context: int, least: str) -> str:
    """What is wrong with problems that `without_room` gave."""
    listed = ", ".join(f"{problem} (leaves {left})" for problem, left in bad[:_LISTED])
    more = f" and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
    return (
        f"prompts of {len(bad)} problems leave fewer than {least} of the context of {context} tokens: {listed}{more}; "
        "leave them out (problems.too_long=exclude does, for training problems), or lower min_new_tokens"
    )


def _remote_code(model: Model) -> list[Fault]:
    if model.trust_remote_code and model.path and local(model.path) is None and not model.revision:
        return [
            Fault("model.trust_remote_code", True, "running a hub model's code needs model.revision, or a local directory as model.path")
        ]
    return []


def _gguf(model: Model, file: Path) -> list[Fault]:
    key, value = ("model.gguf_file", model.gguf_file) if model.gguf_file else ("model.path", model.path)
    if not file.is_file():
        there = sorted(path.name for path in file.parent.glob("*.gguf")) if file.parent.is_dir() else []
        return [Fault(key, value, f"no file {file}" + (f"; there are {', '.join(there)}" if there else ""))]
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            return [Fault(key, value, "not a GGUF file")]
    if find_spec("gguf") is None:
        return [Fault(key, value, 'reading GGUF needs the package gguf: make smollm2, or pip install "qup[smollm2]"')]
    return []


def _directory(model: Model, folder: Path) -> list[Fault]:
    def fault(why: str) -> Fault:
        return Fault("model.path", model.path, why)

    if not folder.is_dir():
        why = missing(model.path) or "not a directory"
        return [fault(f"{why}; a directory with config.json, weights and tokenizer is valid, or a hub name such as org/model")]
    config = read_json(folder / "config.json")
    if config is None:
        return [fault("config.json is missing or not JSON; a directory written by save_pretrained is valid")]
    faults = []
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        faults.append(fault(f"no weights there; one of {', '.join(WEIGHTS)} is needed"))
    settings = read_json(folder / "tokenizer_config.json") or {}
    if not any((folder / name).exists() for name in TOKENIZERS):
        faults.append(fault(f"no tokenizer there; one of {', '.join(TOKENIZERS)} is needed"))
    elif TEMPLATES[model.template].chat and not _chat_template(folder, settings):
        plain = ", ".join(name for name, kind in TEMPLATES.items() if not kind.chat)
        faults.append(
            Fault("model.template", model.template, f"the tokenizer in {model.path} has no chat template; without one {plain} is valid")
        )
    return faults + _family(model, folder, config) + _context(model, config)


def _chat_template(folder: Path, settings: dict[str, Any]) -> bool:
    return bool(settings.get("chat_template")) or any((folder / name).exists() for name in ("chat_template.jinja", "chat_template.json"))


def _family(model: Model, folder: Path, config: dict[str, Any]) -> list[Fault]:
    """A tokenizer that writes ids which the model has no embedding for."""
    rows = _setting(config, "vocab_size")
    tokenizer = read_json(folder / "tokenizer.json")
    if rows is None or tokenizer is None:
        return []
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
    ids += [token["id"] for token in tokenizer.get("added_tokens") or []]
    if ids and max(ids) >= rows:
        why = f"a tokenizer of another family: its ids go up to {max(ids)}, the model embeds {rows}; the model's own tokenizer is needed"
        return [Fault("model.path", model.path, why)]
    return []


def _context(model: Model, config: dict[str, Any]) -> list[Fault]:
    limit = _setting(config, "max_position_embeddings")
    if model.context is not None and limit is not None and model.context > limit:
        return [Fault("model.context", model.context, f"at most {limit}, the positions of {model.path}")]
    return []


def _setting(config: dict[str, Any], name: str) -> int | None:
    found = config.get(name)
    if found is None and isinstance(config.get("text_config"), dict):
        found = config["text_config"].get(name)
    return found if isinstance(found, int) else None
