"""Whether a server works, by what vLLM 0.32.0 tells in /metrics."""

from qup.serving.pulse import PROBES, Pulse, read_counts

METRICS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="student-1"} 3.0
vllm:num_requests_running{engine="1",model_name="student-1"} 0.0
vllm:num_requests_waiting{engine="0",model_name="student-1"} 9.0
vllm:prompt_tokens_total{engine="0",model_name="student-1"} 100.0
vllm:generation_tokens_total{engine="0",model_name="student-1"} 1.5e+06
vllm:generation_tokens_created{engine="0",model_name="student-1"} 1.7
"""


def test_requests_and_tokens_are_read_by_engine():
    assert read_counts(METRICS) == {"0": (3.0, 1500100.0), "1": (0.0, 0.0)}
    assert read_counts("nothing") == {}


def test_an_engine_that_runs_requests_and_makes_no_token_is_stopped():
    pulse = Pulse(100)
    assert pulse.felt({"0": (3, 10), "1": (3, 7)}, 0) == ""
    assert pulse.felt({"0": (3, 20), "1": (3, 7)}, 99) == ""
    assert "engine 1 made no token for 100 s" in pulse.felt({"0": (3, 30), "1": (3, 7)}, 100)


def test_an_idle_engine_and_one_that_works_slowly_are_not():
    pulse = Pulse(100)
    for now in range(0, 1000, 50):
        assert pulse.felt({"0": (0, 10), "1": (2, now // 50)}, now) == ""


def test_missed_probes_count_only_in_a_row():
    pulse, error = Pulse(100), OSError("timed out")
    for _ in range(PROBES - 1):
        assert pulse.missed(error) == ""
    pulse.felt({}, 0)
    for _ in range(PROBES - 1):
        assert pulse.missed(error) == ""
    assert "timed out" in pulse.missed(error)
