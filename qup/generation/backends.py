"""Who generates, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from qup.config.schema import Sampling, Vllm
from qup.errors import InputError
from qup.generation.records import Clamped, Sample
from qup.generation.student import Student
from qup.pipeline.context import Context


class Backend(Protocol):
    """Draws responses; a context manager that owns weights or a server."""

    @property
    def facts(self) -> dict[str, Any]:
        """How it computes, for the manifest."""

    def generate(self, clamped: Clamped) -> Iterator[tuple[int, list[Sample]]]:
        """(place in the requests, its n samples) as they get done, in any order. Raises Interrupted where asked to stop."""

    def close(self) -> None:
        """Lets go of weights or server."""

    def __enter__(self) -> Backend: ...

    def __exit__(self, *args: object) -> None: ...


def open_backend(student: Student, sampling: Sampling, ctx: Context, vllm: Vllm) -> Backend:
    """The backend that `sampling.backend` names, ready to generate; `vllm` says how a server is started, where it is one."""
    if sampling.backend == "transformers":
        return InProcess(student, sampling, ctx.stopping)
    if sampling.backend == "openai":
        from qup.generation.endpoint import ChatBackend

        return ChatBackend(student, sampling, ctx)
    if sampling.backend == "vllm":
        from qup.generation.vllm import VllmBackend

        return VllmBackend(student, sampling, ctx, vllm)
    raise InputError(f"sampling.backend={sampling.backend!r}: valid are transformers, vllm, openai")


class InProcess:
    """Our own generation with the student's weights in this process."""

    def __init__(self, student: Student, sampling: Sampling, stopping: Callable[[], bool]) -> None:
        import torch

        from qup.models import load_model

        torch.set_num_threads(student.model.threads)
        self._model = load_model(student.model, student.directory)
        self._sampling, self._stop_ids, self._stopping = sampling, student.stop_ids, stopping
        decoder = make_decoder(self._model)
        self.facts: dict[str, Any] = {"backend": "transformers", "engine": type(decoder).__name__, "device": decoder.device.type}

    def generate(self, clamped: Clamped) -> Iterator[tuple[int, list[Sample]]]:
        from qup.generation.memory import check_rows

        check_rows(self._model, clamped, self._sampling.rows)
        return sample(self._model, clamped, self._sampling, self._stop_ids, stopping=self._stopping)

    def close(self) -> None:
        self._model = None

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def make_decoder(model: Any) -> Any:
    """The lean decoder where it computes exactly this model, else the generic one."""
    from qup.generation.decoder import GenericDecoder
    from qup.generation.llama import LeanDecoder, supports

    return LeanDecoder(model) if supports(model) else GenericDecoder(model)


def sample(
    model: Any, clamped: Clamped, sampling: Sampling, stop_ids: Sequence[int], *, stopping: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, list[Sample]]]:
    """Draws every request's samples from `model`, a causal language model of transformers.

    Yields (place in the requests, samples) as requests get done. The random number of a token depends on
    `sampling.seed`, the request's id, the sample's number and the position alone. Raises InputError where the GPU's
    memory does not suffice, Interrupted where `stopping` says so.
    """
    import torch

    from qup.generation.schedule import Schedule

    try:
        yield from Schedule(make_decoder(model), clamped, sampling, stop_ids).run(stopping)
    except torch.cuda.OutOfMemoryError:
        raise InputError(
            f"sampling.rows={sampling.rows}: the GPU's memory does not hold so many sequences of this model; lower it"
        ) from None
