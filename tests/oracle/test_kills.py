"""The benchmark's run in small: a server that misbehaves, a client killed on the way."""

from __future__ import annotations

from benchmarks.oracle import measure


def test_kills_and_faults_lose_nothing_and_repeat_only_what_was_in_flight_or_cut() -> None:
    figures = measure(requests=300, rate=150, kills=1, concurrency=32, latency_s=0.05)
    assert figures["lost"] == 0
    assert figures["cut"] > 3 and figures["malformed"] > 0 and figures["limited"] > 10
    assert 0 <= figures["in_flight_at_kills"] <= 32
    assert figures["repeats"] <= figures["cut"] + figures["in_flight_at_kills"]
