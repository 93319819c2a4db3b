"""A server of our own: started, recognised, watched, revived, stopped. The program is a stand-in that misbehaves."""

import logging
import socket
import threading
import time
from http.server import ThreadingHTTPServer

import pytest

from qup.config.schema import Vllm
from qup.errors import Interrupted, QupError
from qup.serving import server as module
from qup.serving.http import fetch_json
from qup.serving.server import Server
from tests.helpers.fake_server import Behaviour, Handler
from tests.helpers.fake_vllm import flag, gone, starts


def serve(environment, *, stopping=lambda: False, args=None, **settings):
    vllm = Vllm(command=str(environment), args=args or {}, **settings)
    return Server(
        vllm, "student", "org/m", {"dtype": "float32"}, work=environment / "work", stopping=stopping, log=logging.getLogger("qup")
    )


def complete(server, timeout_s=5.0):
    body = {"model": server.model, "prompt": [1], "max_tokens": 5, "n": 1}
    return fetch_json(f"{server.url}/v1/completions", body, key=server.key, timeout_s=timeout_s)


def occupied():
    """A port on which somebody else answers."""
    other = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"how": Behaviour(models=("org/other",))}))
    threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
    return other


def test_it_serves_under_a_name_and_a_key_of_its_own(environment, caplog):
    caplog.set_level("INFO", logger="qup")
    with serve(environment, args={"max_num_seqs": 7}) as first, serve(environment) as second:
        assert first.model != second.model
        assert first.key != second.key
        assert first.limit() == 64
        assert first.facts == {"version": "0.0.fake", "flags": ["--dtype", "float32", "--max-num-seqs", "7"], "starts": 1}
        assert complete(first)["choices"]
        with pytest.raises(OSError, match="401"):
            fetch_json(f"{first.url}/v1/models", key=second.key, timeout_s=5)
    started = starts(environment)
    assert [flag(start, "served-model-name") for start in started] == [first.model, second.model]
    assert all(gone(start["pid"]) for start in started)
    assert "vLLM 0.0.fake is ready" in caplog.text
    assert first.key not in caplog.text


def test_another_environments_python_is_kept_from_our_packages(environment, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/ours")
    with serve(environment, setup=["export SET_UP=before"]):
        (start,) = starts(environment)
    assert (start["python_path"], start["setup"]) == (None, "before")


def test_a_foreign_server_on_the_port_is_not_taken_for_ours(environment, monkeypatch):
    other = occupied()
    ports = iter([other.server_port])
    honest = module.free_port
    monkeypatch.setattr(module, "free_port", lambda: next(ports, None) or honest())
    with serve(environment) as server:
        assert server.port != other.server_port
        assert complete(server)["choices"]
        assert server.starts == 1
    other.shutdown()
    other.server_close()


def test_a_port_taken_in_the_meantime_is_tried_anew(environment, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "port taken once")
    with serve(environment) as server:
        assert server.starts == 1
    first, second = starts(environment)
    assert flag(first, "port") != flag(second, "port")


def test_a_server_that_does_not_come_up_says_the_cause_in_one_line(environment, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "broken")
    with (
        pytest.raises(
            QupError, match=r"ended with status 1: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.; its log is "
        ) as told,
        serve(environment),
    ):
        pass
    assert "\n" not in str(told.value)


def test_a_server_that_takes_too_long_is_given_up(environment, monkeypatch):
    monkeypatch.setattr(module, "served", lambda *_, **__: [])
    monkeypatch.setattr(Server, "_recognise", lambda self, timeout_s: (_ for _ in ()).throw(OSError("not yet")))
    with pytest.raises(QupError, match=r"not ready within vllm.start_s=0.3: "), serve(environment, start_s=0.3):
        pass
    assert all(gone(start["pid"]) for start in starts(environment))


def test_it_stops_while_it_starts(environment):
    with pytest.raises(Interrupted, match="starting"), serve(environment, stopping=lambda: True):
        pass
    assert all(gone(start["pid"]) for start in starts(environment))


def wait_for(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ("deaf once", "did not answer 3 probes|no longer listened"),
        ("hangs once", "did not answer 3 probes"),
        ("stalls once", r"engine 0 made no token for 0.2 s \(vllm.stall_s\) while requests ran"),
    ],
)
def test_a_server_that_lives_and_does_not_serve_is_ended_and_revived(environment, watchful, monkeypatch, caplog, told, why):
    """Its requests are cut, not waited for."""
    monkeypatch.setenv("FAKE_VLLM", told)
    caplog.set_level("INFO", logger="qup")
    with serve(environment, stall_s=0.2) as server:
        began = time.monotonic()
        with pytest.raises(OSError, match=r"(?i)connection|closed|reset"):
            complete(server, timeout_s=30)
        assert time.monotonic() - began < 25
        assert server.revive()
        assert complete(server)["choices"]
        assert server.facts["starts"] == 2
    assert [record for record in caplog.messages if "the vLLM server died: " in record]
    import re

    assert re.search(why, caplog.text)
    assert all(gone(start["pid"]) for start in starts(environment))


def test_a_refused_connection_of_a_live_server_counts_as_its_death(environment, monkeypatch):
    monkeypatch.setattr(module, "PROBE_S", 3600)
    with serve(environment) as server:
        assert not server.revive()
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            server.port = nobody.getsockname()[1]
            assert server.revive()
        assert complete(server)["choices"]


def test_it_is_revived_once(environment, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "dies always")
    with serve(environment) as server:
        for _ in range(2):
            with pytest.raises(OSError, match=r"(?i)connection|closed|reset"):
                complete(server)
            if server.starts == 2:
                break
            assert server.revive()
        wait_for(lambda: not server.alive)
        with pytest.raises(QupError, match="died twice: fake vllm starts; its log is"):
            server.revive()


def test_after_its_end_nothing_revives_it(environment):
    with serve(environment) as server:
        pass
    assert not server.revive()
    assert len(starts(environment)) == 1


def test_a_stubborn_server_is_killed_in_less_time_than_the_launcher_waits():
    from qup.launch.local import scheduler

    assert module.STOP_S + 2 < scheduler.GRACE_S
