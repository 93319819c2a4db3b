"""Why a server died, out of lines that vLLM 0.32.0 wrote."""

import pytest

from qup.serving.log import cause

MEMORY = """\
(APIServer pid=13312) WARNING 11-26 02:31:11 [system_utils.py:255] Found ulimit of 20000. This can cause fd limit errors like `OSError: [Errno 24] Too many open files`.
(VllmWorker-0 pid=13879) ERROR 11-26 02:31:36 [multiproc_executor.py:953]     raise ValueError(
(VllmWorker-0 pid=13879) ERROR 11-26 02:31:36 [multiproc_executor.py:953] ValueError: Available memory on node 0 (9.04/10.46 GiB) on startup is less than desired
(EngineCore pid=13500) ERROR 11-26 02:31:37 [core.py:1512] Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
  File "vllm/v1/engine/utils.py", line 1431, in wait_for_engine_startup
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""
KERNEL = """\
(Worker pid=14676) ERROR 11-26 02:32:40 [multiproc_executor.py:1063] RuntimeError: Unsupported CPU attention configuration: head_dim=8
(EngineCore pid=14403) ERROR 11-26 02:32:40 [core.py:1512] RuntimeError: Worker failed with error 'Unsupported CPU attention configuration', please check the stack trace above for the root cause
(APIServer pid=14292) ERROR 11-26 02:32:40 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.
INFO:     127.0.0.1:46634 - "POST /v1/completions HTTP/1.1" 500 Internal Server Error
(EngineCore pid=14403) INFO 11-26 02:32:40 [multiproc_executor.py:479] [shutdown] Executor: waiting for worker exit count=1
"""
USAGE = "usage: vllm serve [model_tag] [options]\nvllm: error: unrecognized arguments: --no-such-flag\n\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MEMORY, "ValueError: Available memory on node 0 (9.04/10.46 GiB) on startup is less than desired"),
        (KERNEL, "RuntimeError: Unsupported CPU attention configuration: head_dim=8"),
        (USAGE, "vllm: error: unrecognized arguments: --no-such-flag"),
        ("", "its log is empty"),
    ],
)
def test_the_error_that_points_to_no_other_is_the_cause(tmp_path, text, expected):
    (tmp_path / "log").write_text(text)
    assert cause(tmp_path / "log") == expected


def test_an_earlier_start_is_not_blamed(tmp_path):
    (tmp_path / "log").write_text(MEMORY + "Killed\n")
    assert cause(tmp_path / "log", len(MEMORY)) == "Killed"
