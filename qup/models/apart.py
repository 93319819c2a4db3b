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
from typing import Any, ParamSpec, TypeVar

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
    try:
        with _turn:
            done, found = _ask((function, args, kwargs))
    except (EOFError, OSError, TypeError, pickle.PickleError):
        return function(*args, **kwargs)
    if not done:
        raise found
    return found  # type: ignore[no-any-return]


def _ask(call: tuple[Any, ...]) -> tuple[bool, Any]:
    asked, answers = _other().stdin, _other().stdout
    assert asked is not None and answers is not None
    pickle.dump(call, asked)
    asked.flush()
    return pickle.load(answers)  # type: ignore[no-any-return]


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
        try:
            answer = (True, function(*args, **kwargs))
        except Exception as error:
            answer = (False, error)
        pickle.dump(answer, answers)
        answers.flush()
