"""The student: loading it, and turning text into the ids it reads and back. Light until something is loaded."""

from qup.models.check import check_model, check_reward, no_room
from qup.models.load import context_length, load_configs, load_model, load_tokenizer, local_path, pick_device, placed
from qup.models.tokens import (
    decode_response,
    encode_prompt,
    encode_response,
    question_span,
    response_ends,
    stop_ids,
    train_stop_id,
    without_room,
)

__all__ = [
    "check_model",
    "check_reward",
    "context_length",
    "decode_response",
    "encode_prompt",
    "encode_response",
    "load_configs",
    "load_model",
    "load_tokenizer",
    "local_path",
    "no_room",
    "pick_device",
    "placed",
    "question_span",
    "response_ends",
    "stop_ids",
    "train_stop_id",
    "without_room",
]
