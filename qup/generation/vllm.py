"""Responses from a vLLM server that we start on the GPUs this stage was given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qup.config.schema import Sampling, Vllm
from qup.errors import InputError, QupError
from qup.generation.endpoint import Endpoint, fan_out, fitted, gather, seed_of
from qup.generation.records import Clamped, Request, Sample
from qup.generation.student import Student
from qup.models import placed
from qup.pipeline.context import Context
from qup.serving.command import count_gpus
from qup.serving.server import Server


def student_flags(student: Student, sampling: Sampling, gpus: int, split: int) -> tuple[str, dict[str, Any]]:
    """The model and the flags of its server: copies of the student on `gpus` GPUs, each over `split` of them."""
    place = placed(student.model, student.directory)
    if gpus % split:
        raise InputError(f"vllm.tensor_parallel={split}: must divide the {gpus} GPUs of the stage")
    flags = {
        "dtype": student.model.dtype,
        "max-model-len": student.context,
        "seed": (sampling.seed or 0) & 0x7FFFFFFF,
        "generation-config": "vllm",  # else the model's own sampling defaults creep in
        "revision": place.revision,
        "trust-remote-code": place.trust_remote_code or None,
        "tensor-parallel-size": split if split > 1 else None,
        "data-parallel-size": gpus // split if gpus > split else None,
    }
    return place.name, {name: value for name, value in flags.items() if value is not None} | sampling.vllm


class VllmBackend:
    """Prompts go as token ids, so template and stop ids are ours; log-probabilities are of the unmodified logits."""

    def __init__(self, student: Student, sampling: Sampling, ctx: Context, vllm: Vllm) -> None:
        self._student, self._sampling, self._stopping = student, sampling, ctx.stopping
        gpus = count_gpus(ctx.resources.gpus)
        model, flags = student_flags(student, sampling, gpus, vllm.tensor_parallel)
        self.server = Server(vllm, "student", model, flags, work=ctx.work, stopping=ctx.stopping, log=ctx.log)
        self.server.__enter__()
        self._endpoint = Endpoint.of(self.server)
        n = 1 if sampling.temperature == 0 else sampling.n
        self._concurrency = -(-vllm.sequences * gpus // (vllm.tensor_parallel * n))

    @property
    def facts(self) -> dict[str, Any]:
        """How it computes, for the manifest."""
        return {"backend": "vllm", **self.server.facts}

    def generate(self, clamped: Clamped) -> Iterator[tuple[int, list[Sample]]]:
        return fan_out(clamped, self._ask, self._stopping, self._endpoint, self._concurrency)

    def _ask(self, request: Request, room: int) -> list[Sample]:
        return gather(request, self._sampling, lambda first, wanted: self._send(request, room, first, wanted))

    def _send(self, request: Request, room: int, first: int, wanted: int) -> list[Sample]:
        import openai

        sampling = self._sampling
        body = {
            "model": self.server.model,
            "prompt": list(request.prompt_ids),
            "n": wanted,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": room,
            "logprobs": 0,
            "seed": seed_of(sampling, request, first),
            "extra_body": {
                "top_k": sampling.top_k or -1,
                "min_p": sampling.min_p,
                "stop_token_ids": list(self._student.stop_ids),
                "skip_special_tokens": False,
                "return_token_ids": True,
                "return_tokens_as_token_ids": True,
            },
        }
        try:
            answer = self._endpoint.call(lambda client: client.completions.create, body)
        except openai.BadRequestError as error:
            raise InputError(f"vLLM refuses problem {request.id}: {str(error.message)[:300]}") from None
        return [self._sample(choice) for choice in answer.choices or []]

    def _sample(self, choice: Any) -> Sample:
        stops = self._student.stop_ids
        finish = str(choice.finish_reason)
        told = choice.logprobs
        ids = getattr(choice, "token_ids", None)
        if ids is None and told is not None and all(str(token).startswith("token_id:") for token in told.tokens or []):
            ids = [int(token.partition(":")[2]) for token in told.tokens or []]
        if ids is None:
            raise QupError("the vLLM server gives no token ids; version 0.10.2 or later does")
        ids = list(ids)
        if finish == "stop" and (not ids or ids[-1] not in stops):
            reason = getattr(choice, "stop_reason", None)
            ids.append(reason if isinstance(reason, int) else self._student.train_stop_id)
        found = list(told.token_logprobs or []) if told is not None else []
        return Sample(tuple(ids), fitted(found, len(ids)), finish)

    def close(self) -> None:
        self._endpoint.close()
        self.server.close()

    def __enter__(self) -> VllmBackend:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()
