"""Who generates: one interface over this process, a server of ours, and any endpoint."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from qup.config.schema import Model, Sampling
from qup.errors import InputError, Interrupted
from qup.generation.records import Clamped, Request, Sample, clamp
from qup.models import context_length, encode_prompt, load_model, load_tokenizer, stop_ids
from qup.models.load import whence
from qup.templates import messages, template_hash

Stopping = Callable[[], bool]


class Backend(Protocol):
    """Draws samples for requests, in whatever order they finish."""

    facts: dict[str, Any]
    """Template hash, stop ids and sampling settings, for the manifest."""

    def request(self, identity: str, question: str) -> Request: ...

    def text(self, sample: Sample) -> str: ...

    def generate(self, requests: Sequence[Request], stopping: Stopping) -> Iterator[tuple[int, list[Sample]]]: ...

    def close(self) -> None: ...


class _Shared:
    """Tokenizer, stop ids and context, which all backends need."""

    def __init__(self, model: Model, directory: Path | None, sampling: Sampling, log: logging.Logger) -> None:
        from transformers import AutoConfig, GenerationConfig

        self.model_cfg, self.sampling, self.log = model, sampling, log
        self.tokenizer = load_tokenizer(model, directory)
        place = whence(model, directory)
        self.config = AutoConfig.from_pretrained(place.name, **place.arguments)
        try:
            generation = GenerationConfig.from_pretrained(place.name, revision=place.revision)
        except OSError:
            generation = None
        self.stop_ids = stop_ids(self.tokenizer, model, self.config, generation)
        self.context = context_length(model, self.config)
        self.facts = {
            "template": model.template,
            "template_hash": template_hash(self.tokenizer, model.template),
            "stop_ids": list(self.stop_ids),
            "context": self.context,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "max_new_tokens": sampling.max_new_tokens,
        }

    def request(self, identity: str, question: str) -> Request:
        """The prompt of a problem, `n` samples wanted."""
        ids = encode_prompt(self.tokenizer, self.model_cfg.template, question)
        return Request(identity, tuple(ids), self.sampling.n, tuple(messages(self.model_cfg.template, question)))

    def text(self, sample: Sample) -> str:
        """A sample's text without the stop token."""
        from qup.models import decode_response

        return sample.text if sample.text is not None else decode_response(self.tokenizer, sample.token_ids, self.stop_ids)

    def clamp(self, requests: Sequence[Request]) -> Clamped:
        clamped = clamp(requests, self.context, self.sampling.max_new_tokens, self.sampling.min_new_tokens)
        if clamped.n_clamped:
            self.log.warning(
                "%d of %d prompts leave less than max_new_tokens=%d of the context of %d; their responses are clamped",
                clamped.n_clamped,
                len(requests),
                self.sampling.max_new_tokens,
                self.context,
            )
        return clamped


class InProcess(_Shared):
    """The `transformers` backend: the model in this process, on CPU or GPU."""

    def __init__(self, model: Model, directory: Path | None, sampling: Sampling, log: logging.Logger) -> None:
        super().__init__(model, directory, sampling, log)
        from qup.generation.decoder import Decoder, GenericDecoder
        from qup.generation.llama import LeanDecoder, supports

        loaded: Any = load_model(model, directory)
        self.decoder: Decoder = LeanDecoder(loaded) if supports(loaded) else GenericDecoder(loaded)

    def generate(self, requests: Sequence[Request], stopping: Stopping) -> Iterator[tuple[int, list[Sample]]]:
        """Samples by request index, as problems finish."""
        from qup.generation.schedule import Schedule

        return Schedule(self.decoder, self.clamp(requests), self.sampling, self.stop_ids).run(stopping)

    def close(self) -> None:
        """Nothing to close."""


class Endpoint(_Shared):
    """Any OpenAI-compatible endpoint; n and log-probabilities are not relied on."""

    completions = False

    def __init__(self, model: Model, directory: Path | None, sampling: Sampling, log: logging.Logger, base_url: str | None = None) -> None:
        super().__init__(model, directory, sampling, log)
        import openai

        url = base_url or sampling.base_url
        if not url:
            raise InputError("sampling.base_url is empty: backend=openai needs the endpoint's address")
        self.url = url
        self.client = openai.OpenAI(base_url=url, api_key=os.environ.get(sampling.api_key_env, "none"), max_retries=6, timeout=600)
        self.name = sampling.served_model or model.name

    def generate(self, requests: Sequence[Request], stopping: Stopping) -> Iterator[tuple[int, list[Sample]]]:
        """Samples by request index, several problems at once, in order."""
        from concurrent.futures import ThreadPoolExecutor

        clamped = self.clamp(requests)
        with ThreadPoolExecutor(max_workers=max(1, self.sampling.rows // self.sampling.n)) as pool:
            futures = [
                pool.submit(self._ask, request, room, stopping) for request, room in zip(clamped.requests, clamped.room, strict=True)
            ]
            for index, future in enumerate(futures):
                if stopping():
                    for waiting in futures:
                        waiting.cancel()
                    raise Interrupted("asked to stop; finished shards are kept")
                yield index, future.result()

    def _ask(self, request: Request, room: int, stopping: Stopping) -> list[Sample]:
        import openai

        found: list[Sample] = []
        while len(found) < request.n:
            if stopping():
                raise Interrupted("asked to stop; finished shards are kept")
            common: dict[str, Any] = {
                "model": self.name,
                "max_tokens": room,
                "n": request.n - len(found),
                "temperature": self.sampling.temperature,
                "top_p": self.sampling.top_p,
                "seed": (self.sampling.seed or 0) + len(found),
            }
            try:
                if self.completions:
                    extra = {"top_k": self.sampling.top_k or -1, "min_p": self.sampling.min_p, "stop_token_ids": list(self.stop_ids)}
                    reply: Any = self.client.completions.create(prompt=list(request.prompt_ids), extra_body=extra, **common)
                    texts = [(choice.text, choice.finish_reason) for choice in reply.choices]
                else:
                    reply = self.client.chat.completions.create(messages=list(request.messages), **common)  # type: ignore[call-overload]
                    texts = [(choice.message.content or "", choice.finish_reason) for choice in reply.choices]
            except openai.OpenAIError as error:
                raise InputError(f"sampling.base_url={self.url}: {type(error).__name__}: {str(error)[:300]}") from None
            if not texts:
                raise InputError(f"sampling.base_url={self.url}: the endpoint answered without a choice")
            found += [self._sample(text, finish) for text, finish in texts]
        return found[: request.n]

    def _sample(self, text: str, finish: str | None) -> Sample:
        ids = tuple(self.tokenizer(text, add_special_tokens=False).input_ids)
        return Sample(ids, (float("nan"),) * len(ids), "length" if finish == "length" else "stop", text)

    def close(self) -> None:
        self.client.close()


class VllmServer(Endpoint):
    """The `vllm` backend: a server of our own on the GPUs this stage was given."""

    completions = True

    def __init__(self, model: Model, directory: Path | None, sampling: Sampling, log: logging.Logger, work: Path) -> None:
        from qup.generation.vllm_server import Server

        place = whence(model, directory)
        self.server = Server(place.name, place.revision, work, log, model.dtype)
        url = self.server.start()
        super().__init__(model, directory, sampling, log, url)
        self.name = self.server.served

    def _ask(self, request: Request, room: int, stopping: Stopping) -> list[Sample]:
        try:
            return super()._ask(request, room, stopping)
        except InputError:
            if not self.server.restart_if_dead():
                raise
            return super()._ask(request, room, stopping)

    def close(self) -> None:
        super().close()
        self.server.stop()


def open_backend(model: Model, directory: Path | None, sampling: Sampling, log: logging.Logger, work: Path) -> Backend:
    """The backend that `sampling.backend` names; `directory` is an artifact's weights, else model.path says."""
    match sampling.backend:
        case "transformers":
            return InProcess(model, directory, sampling, log)
        case "vllm":
            return VllmServer(model, directory, sampling, log, work)
        case _:
            return Endpoint(model, directory, sampling, log)


def facts_json(backend: Backend) -> str:
    """The facts, to be kept beside shards until the merge."""
    return json.dumps(backend.facts, sort_keys=True)
