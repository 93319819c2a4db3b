"""Reward models in process: loading, batching by length, and where each kind's score comes out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from qup.config.schema import Reward
from qup.errors import InputError
from qup.models import local_path, pick_device
from qup.scoring.formats import FORMATS, Ids


def length_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices, longest first, in batches of at most `batch_tokens` padded tokens (one longer sequence goes alone)."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // max(lengths[order[start]], 1))
        yield order[start : start + rows]
        start += rows


def source_of(reward: Reward, name: str, directory: Path | None) -> tuple[str, dict[str, Any]]:
    """Where the model lies and the arguments it is loaded with; raises InputError where its code may not be run."""
    if directory is not None:
        return str(directory), {}
    if not reward.path:
        raise InputError(f"reward.{name}.path is empty: a local directory or a hub name is valid")
    found = local_path(reward.path)
    if found is not None:
        if not found.is_dir():
            raise InputError(f"reward.{name}.path={reward.path}: there is no such directory")
        return str(found), {"trust_remote_code": reward.trust_remote_code}
    commit = reward.content if re.fullmatch(r"[0-9a-f]{40}", reward.content) else reward.revision
    if reward.trust_remote_code and not reward.revision:
        raise InputError(
            f"reward.{name}.trust_remote_code: running code of the hub model {reward.path} needs reward.{name}.revision, or a local directory"
        )
    return reward.path, {"trust_remote_code": reward.trust_remote_code, **({"revision": commit} if commit else {})}


def load_reward_tokenizer(reward: Reward, name: str, directory: Path | None = None) -> Any:
    """The reward model's tokenizer; InputError where there is none."""
    from transformers import AutoTokenizer

    place, arguments = source_of(reward, name, directory)
    try:
        return AutoTokenizer.from_pretrained(place, **arguments)
    except (OSError, ValueError) as error:
        raise InputError(f"reward.{name}.path={reward.path}: no tokenizer could be loaded ({_line(error)})") from None


class RewardModel:
    """A reward model and its input format; `score` gives one number a sequence."""

    def __init__(self, reward: Reward, name: str, directory: Path | None = None) -> None:
        self.name = name
        self.kind = _kind(reward)
        self.batch_tokens = reward.batch_tokens
        self.model = _load(reward, name, self.kind, directory)
        self.config = self.model.config.get_text_config()
        self.device = self.model.get_input_embeddings().weight.device
        self.vocabulary = self.model.get_input_embeddings().weight.shape[0]
        self.limit = min(reward.max_length, getattr(self.config, "max_position_embeddings", None) or reward.max_length)
        """Tokens, problem and trace together, that still get a score."""

    @torch.inference_mode()
    def score(self, sequences: Sequence[Ids]) -> list[float]:
        """Scores in the order given; equal sequences are computed once."""
        unique = list(dict.fromkeys(map(tuple, sequences)))
        found: dict[tuple[int, ...], float] = {}
        for members in length_batches([len(ids) for ids in unique], self.batch_tokens):
            batch = [unique[index] for index in members]
            found.update(zip(batch, self._batch(batch), strict=True))
        return [found[tuple(ids)] for ids in sequences]

    def _batch(self, batch: Sequence[tuple[int, ...]]) -> list[float]:
        """Right-padded with an id that occurs in none of the sequences: models find the last token by the pad id."""
        used = {token for ids in batch for token in ids}
        pad = next((token for token in range(self.vocabulary) if token not in used), None)
        width = len(batch[0])
        if pad is None and any(len(ids) != width for ids in batch):
            return [score for ids in batch for score in self._batch([ids])]
        ids = torch.full((len(batch), width), pad or 0, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(batch):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        ends = torch.tensor([len(sequence) - 1 for sequence in batch])
        kept = self.config.pad_token_id
        self.config.pad_token_id = pad
        try:
            return [float(score) for score in self._forward(ids.to(self.device), mask.to(self.device), ends)]
        finally:
            self.config.pad_token_id = kept

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(ids))
        if self.kind == "qwen":
            return self.model(ids, mask, ends).float().cpu()  # type: ignore[no-any-return]
        if self.kind == "causal":
            hidden = self.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            last = hidden[rows.to(hidden.device), ends.to(hidden.device)]
            return self.model.get_output_embeddings()(last)[:, 0].float().cpu()
        if self.kind == "remote":
            try:
                values = self.model(input_ids=ids, attention_mask=mask)[0]
            except Exception as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                raise InputError(f"reward.{self.name}: {_foreign(error)}") from error
        else:
            values = self.model(input_ids=ids, attention_mask=mask).logits
        if values.shape[-1] != 1:
            raise InputError(f"reward.{self.name}: the model gives {values.shape[-1]} numbers where one score is expected")
        values = values.squeeze(-1).float().cpu()
        return values[rows, ends] if values.dim() == 2 else values


def _kind(reward: Reward) -> str:
    """Where the score comes out; `remote`: of the model's own code, which takes the place of ours where a config asks for it."""
    kind = FORMATS[reward.format].kind
    return "remote" if kind == "qwen" and reward.trust_remote_code else kind


def _load(reward: Reward, name: str, kind: str, directory: Path | None) -> Any:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.utils.logging import disable_progress_bar

    from qup.scoring.qwen_reward import QwenRewardModel

    disable_progress_bar()
    place, arguments = source_of(reward, name, directory)
    where = f"reward.{name}.path={reward.path or place}"
    loaders: dict[str, Any] = {
        "classifier": AutoModelForSequenceClassification,
        "qwen": QwenRewardModel,
        "remote": AutoModel,
        "causal": AutoModelForCausalLM,
    }
    several = reward.device != "cpu" and torch.cuda.device_count() > 1
    try:
        if kind == "classifier":
            labels = AutoConfig.from_pretrained(place, **arguments).num_labels
            if labels != 1:
                raise InputError(f"{where}: a model with {labels} labels; a reward model has one (num_labels=1)")
        if kind == "qwen":
            arguments.pop("trust_remote_code", None)
        placing = {"device_map": "auto"} if several else {}
        model, report = loaders[kind].from_pretrained(
            place, dtype=getattr(torch, reward.dtype), output_loading_info=True, **placing, **arguments
        )
    except InputError:
        raise
    except Exception as error:
        if arguments.get("trust_remote_code"):
            raise InputError(f"{where}: {_foreign(error)}") from error
        if not isinstance(error, OSError | ValueError | ImportError):
            raise
        remedy = f"; reward.{name}.trust_remote_code=true would run it" if "custom code" in str(error) else ""
        raise InputError(f"{where}: no reward model could be loaded ({_line(error)}){remedy}") from None
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise InputError(f"{where}: weights are missing ({missing}); its scores would be random")
    device = _device(reward, name)
    if not several:
        model = model.to(device)
    return model.eval()


def position_limit(reward: Reward, name: str, directory: Path | None) -> int | None:
    """Positions that the model has; None where its configuration names none."""
    from transformers import AutoConfig

    place, arguments = source_of(reward, name, directory)
    try:
        config = AutoConfig.from_pretrained(place, **arguments).get_text_config()
    except (OSError, ValueError) as error:
        raise InputError(f"reward.{name}.path={reward.path}: no configuration could be loaded ({_line(error)})") from None
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) else None


def _foreign(error: BaseException) -> str:
    """A failure of code that came with a model."""
    import transformers

    return (
        f"the code that comes with this model does not run under transformers {transformers.__version__} "
        f"({type(error).__name__}: {_line(error)}); name a revision whose code does, or leave trust_remote_code out, "
        "and it is loaded without its code where its format allows that"
    )


def _device(reward: Reward, name: str) -> str:
    if reward.device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"reward.{name}.device=cuda: this machine has no usable GPU; auto and cpu are valid here")
    return pick_device(reward.device)


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
