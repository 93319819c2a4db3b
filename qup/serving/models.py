"""What an OpenAI-compatible server says of the models it serves."""

from __future__ import annotations

from typing import Any

from qup.serving.http import fetch_json


def served(url: str, key: str | None, *, timeout_s: float = 20.0) -> list[dict[str, Any]]:
    """The models of an OpenAI-compatible server at `url` (without /v1), each with its `id`.

    Raises OSError (HTTPError and URLError are such) where it can't be asked, ValueError where the answer is no such list.
    """
    answer = fetch_json(f"{url}/v1/models", key=key, timeout_s=timeout_s)
    models = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(models, list) or not all(isinstance(model, dict) and isinstance(model.get("id"), str) for model in models):
        raise ValueError(f"{url}/v1/models names no model: {str(answer)[:200]}")
    return models


def served_limit(models: list[dict[str, Any]], name: str) -> int | None:
    """Tokens that a served model takes, as its server says; None where it does not."""
    found = next((model.get("max_model_len") for model in models if model["id"] == name), None)
    return found if isinstance(found, int) else None
