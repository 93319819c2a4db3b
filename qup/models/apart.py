"""Tokenizers and configurations looked at in a process of its own that never has torch.

Without it transformers is there in a second instead of three, and this process goes on meanwhile: a launch on a login
node neither waits for torch nor holds its memory.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any, Concatenate, ParamSpec, TypeVar

from qup.config.schema import Model

P = ParamSpec("P")
T = TypeVar("T")
_turn = Lock()


def start() -> None:
    """Has the process begin, so that it is ready by the time it is asked; of no use where torch is here already."""
    if "torch" not in sys.modules:
        _other()


def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` gives, which may need transformers and no weights. Its arguments, result and errors must be picklable.

    Called here where torch is here already, and where the other process is gone.
    """
    if "torch" in sys.modules:
        return function(*args, **kwargs)
    with _turn:
        answer = _ask((function, args, kwargs))
    if answer is None:
        return function(*args, **kwargs)
    done, found = answer
    if not done:
        raise found
    return found  # type: ignore[no-any-return]


def of_model(function: Callable[Concatenate[Model, P], T], model: Model, *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` gives of a model: apart, or here where the model brings code of its own, which may need torch."""
    return function(model, *args, **kwargs) if model.trust_remote_code else apart(function, model, *args, **kwargs)


def _ask(call: tuple[Any, ...]) -> tuple[bool, Any] | None:
    """Whether the call gave something, and what it gave or raised; None where no answer can be had."""
    other = _other()
    assert other.stdin is not None and other.stdout is not None
    try:
        pickle.dump(call, other.stdin)
        other.stdin.flush()
        return pickle.load(other.stdout)  # type: ignore[no-any-return]
    except BaseException as error:
        # an answer that comes later would be taken for that of the next call
        other.kill()
        _other.cache_clear()
        if isinstance(error, Exception):
            return None
        raise


@cache
def _other() -> subprocess.Popen[bytes]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    return subprocess.Popen(
        [sys.executable, "-c", "from qup.models.apart import serve; serve()"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def serve() -> None:
    """Answers what comes on standard input until that is closed, as it is however the process that asks ends."""
    # Ctrl-C reaches the whole group: the one that asks tells of it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.modules["torch"] = None  # type: ignore[assignment]
    import transformers.models.auto.tokenization_auto  # noqa: F401

    while True:
        try:
            function, args, kwargs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: tuple[bool, Any] | None
        try:
            answer = (True, function(*args, **kwargs))
        except Exception as error:
            answer = (False, error)
        try:
            told = pickle.dumps(answer)
        except Exception:
            told = pickle.dumps(None)
        try:
            answers.write(told)
            answers.flush()
        except BrokenPipeError:
            os._exit(0)
