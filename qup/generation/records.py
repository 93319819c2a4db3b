"""What is asked of a generator and what comes back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from qup.errors import InputError


@dataclass(frozen=True)
class Request:
    """`n` responses to one prompt."""

    id: str
    """Names the problem; its random numbers depend on it."""
    prompt_ids: tuple[int, ...]
    n: int
    messages: tuple[dict[str, str], ...] = ()
    """The same prompt as a conversation, for endpoints that apply a chat template of their own."""


@dataclass(frozen=True)
class Sample:
    """One response."""

    token_ids: tuple[int, ...]
    """As sampled, the stop token included; T entries."""
    logprob_T: tuple[float, ...]
    """Natural log under the model's own distribution: temperature 1, all tokens, fp32; NaN where a server gives none."""
    finish: str
    """stop | length."""
    text: str | None = None
    """Where a server decoded it; else the ids are to be decoded."""


@dataclass(frozen=True)
class Clamped:
    """Requests and the room each has in the context."""

    requests: tuple[Request, ...]
    room: tuple[int, ...]
    """Most new tokens a request may get."""
    n_clamped: int
    """Requests whose room is less than max_new_tokens."""


def clamp(requests: Sequence[Request], context: int, max_new_tokens: int, min_new_tokens: int) -> Clamped:
    """Room for new tokens by request: prompt and response together fit the context.

    Raises InputError naming the first problem whose prompt is empty or leaves fewer than `min_new_tokens`.
    """
    room = []
    for request in requests:
        left = context - len(request.prompt_ids)
        if not request.prompt_ids:
            raise InputError(f"problem {request.id}: its prompt has no token")
        if left < min_new_tokens:
            raise InputError(
                f"problem {request.id}: its prompt has {len(request.prompt_ids)} tokens and leaves {max(left, 0)} of the context of {context}; "
                f"at least {min_new_tokens} are wanted (sampling.min_new_tokens)"
            )
        room.append(min(left, max_new_tokens))
    return Clamped(tuple(requests), tuple(room), sum(left < max_new_tokens for left in room))


def stream_key(seed: int, request_id: str, sample: int) -> int:
    """64 bits that name the random stream of one sample; they depend on nothing else."""
    text = f"{seed}\x1f{request_id}\x1f{sample}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, person=b"qup.sample").digest(), "little")
