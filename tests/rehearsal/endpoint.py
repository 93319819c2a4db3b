"""An OpenAI-compatible endpoint that solves the rehearsal's problems: the Oracle and the judge."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request

RATINGS = {"definitions": 4, "equations": 4, "assumptions": 4, "trial_steps": 5, "overall": 4}


def endpoint(solutions: Mapping[str, str]) -> FastAPI:
    """Answers by the task in the system message; `solutions` are by question."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> dict[str, Any]:
        body = await request.json()
        said = "\n".join(message["content"] for message in body["messages"])
        text = _answer(said, solutions)
        usage = {"prompt_tokens": len(said) // 4, "completion_tokens": len(text) // 4, "total_tokens": (len(said) + len(text)) // 4}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice], "usage": usage}

    return app


def _answer(said: str, solutions: Mapping[str, str]) -> str:
    task = said.splitlines()[0].removeprefix("Task:").strip()
    if task in ("judge", "judge_symmetric"):
        return json.dumps(RATINGS)
    if task == "rank":
        return json.dumps({"ranking": sorted(re.findall(r'<solution id="(\w+)">', said))})
    solution = next((text for question, text in solutions.items() if question in said), r"I cannot tell. \boxed{0}")
    return f"## Solution\n\nStep 1. {solution}" if task == "synthesize" else solution
