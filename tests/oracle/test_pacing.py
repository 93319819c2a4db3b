"""Window, bucket and circuit, on clocks that the tests move."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from qup.oracle.bucket import SharedBucket
from qup.oracle.circuit import Circuit
from qup.oracle.faults import Broken, Hopeless, Limited
from qup.oracle.window import Window


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def simulate(
    window: Window, clock: Clock, seconds: float, *, rate: float, ambient: float = 0.0, latency: float = 0.2, queue: bool = False
) -> tuple[float, float]:
    """(answers a second, share turned away) of a server with a rate limit, or with a queue, over the last half of the time."""
    draws = random.Random(0)
    good = limited = 0
    steps = int(seconds / latency)
    for step in range(steps):
        sent = int(window.limit)
        window.in_flight = window._busiest = sent
        allowed = int(rate * latency)
        slow = max(1.0, sent / allowed) if queue else 1.0
        clock.now += latency * slow
        for n in range(sent):
            away = draws.random() < ambient or (not queue and n >= allowed)
            if away:
                window.limited(1.0)
            else:
                window.answered(latency * slow)
            if step >= steps // 2:
                good += not away
                limited += away
        window.in_flight = 0
    return good / (seconds / 2), limited / max(1, good + limited)


@pytest.mark.parametrize("ambient", [0.0, 0.1])
def test_the_window_finds_the_rate_a_server_allows(ambient: float) -> None:
    clock = Clock()
    rate, turned_away = simulate(Window(256, clock), clock, 60, rate=100, ambient=ambient)
    assert rate > 0.85 * 100 * (1 - ambient)
    assert turned_away < 0.35


def test_the_window_opens_to_its_most_where_nothing_is_in_the_way() -> None:
    clock = Clock()
    window = Window(64, clock)
    simulate(window, clock, 15, rate=1e9, ambient=0.1)
    assert window.limit == 64


def test_the_window_stays_small_where_a_queue_forms() -> None:
    clock = Clock()
    window = Window(512, clock)
    simulate(window, clock, 60, rate=100, queue=True)
    assert 20 <= window.limit < 160


def test_everybody_waits_where_everything_is_turned_away() -> None:
    clock = Clock()
    window = Window(8, clock)
    for _ in range(20):
        clock.now += 1
        window.limited(30.0)
    assert 0 < window.pause() <= 30
    assert window.limit >= 1


def test_slots_are_given_first_come_first_served_and_returned() -> None:
    async def main() -> list[int]:
        window = Window(1)
        order: list[int] = []

        async def work(n: int) -> None:
            async with window.slot():
                order.append(n)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(work(n)) for n in range(5)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert window.in_flight == 0
        assert window.peak == 1
        return order

    assert asyncio.run(main()) == [0, 1, 3, 4]


def test_a_slot_offered_to_a_request_that_was_just_cancelled_goes_to_the_next() -> None:
    async def main() -> list[str]:
        window = Window(1)
        done: list[str] = []

        async def work(name: str) -> None:
            async with window.slot():
                done.append(name)

        async with window.slot():
            offered, after = asyncio.create_task(work("offered")), asyncio.create_task(work("after"))
            await asyncio.sleep(0)
        offered.cancel()
        await asyncio.wait_for(after, 5)
        return done

    assert asyncio.run(main()) == ["after"]


def together(*work: Coroutine[Any, Any, None]) -> None:
    async def main() -> None:
        await asyncio.gather(*work)

    asyncio.run(main())


def test_buckets_on_one_file_keep_to_one_rate(tmp_path: Path) -> None:
    clock = Clock()
    first, second = (SharedBucket(tmp_path / "bucket", 600, clock) for _ in range(2))
    taken: list[float] = []

    async def use(bucket: SharedBucket) -> None:
        while clock.now < 1060:
            granted, wait = bucket._lease(1)
            if granted:
                taken.extend([clock.now] * int(granted))
            else:
                clock.now += wait / 2
            await asyncio.sleep(0)

    together(use(first), use(second))
    assert len(taken) > 500
    minute = [at for at in taken if 1000 <= at < 1060]
    assert 0.95 * 600 <= len(minute) <= 600


def test_taking_waits_for_the_rate(tmp_path: Path) -> None:
    async def main() -> float:
        bucket = SharedBucket(tmp_path / "bucket", 6000)
        started = asyncio.get_running_loop().time()
        for _ in range(60):
            await bucket.take(1)
        bucket.close()
        return asyncio.get_running_loop().time() - started

    assert 0.4 <= asyncio.run(main()) < 5


def test_a_want_above_the_buckets_size_goes_through_as_debt(tmp_path: Path) -> None:
    clock = Clock()
    bucket = SharedBucket(tmp_path / "bucket", 60_000, clock)
    bucket._lease(1)
    clock.now += 2
    assert bucket._lease(5000)[0] == 5000
    granted, wait = bucket._lease(1)
    assert granted == 0 and wait > 3


@pytest.mark.parametrize("text", ["", "1", "x y", "nan 5", "1e9 1000", "5 9e9"])
def test_a_bucket_file_that_cannot_be_right_is_an_empty_bucket(tmp_path: Path, text: str) -> None:
    (tmp_path / "bucket").write_text(text)
    assert SharedBucket(tmp_path / "bucket", 600, Clock())._lease(1)[0] == 0


def test_a_clock_that_runs_behind_refills_nothing(tmp_path: Path) -> None:
    ahead, behind = Clock(), Clock()
    ahead.now += 20
    first, second = SharedBucket(tmp_path / "bucket", 600, ahead), SharedBucket(tmp_path / "bucket", 600, behind)
    first._lease(1)
    granted = 0.0
    for _ in range(50):
        behind.now += 0.1
        granted += second._lease(1)[0]
    assert granted == 0


CUT = Broken("cut", "the connection was cut", doubtful=True)


def test_an_endpoint_that_never_answered_gets_little_patience() -> None:
    circuit = Circuit("the endpoint X", 8, 900)
    sends = 0
    with pytest.raises(Hopeless, match=r"the endpoint X can't be used: .* was cut"):
        for _ in range(100):
            sends += 1
            circuit.broken(CUT, "k", probe=circuit.probing)
    assert sends <= 6


def test_an_endpoint_that_did_answer_gets_probes_one_at_a_time() -> None:
    circuit = Circuit("X", 8, 900)
    circuit.good()
    for _ in range(15):
        circuit.broken(CUT, "k", probe=False)
    assert not circuit.probing
    circuit.broken(CUT, "k", probe=False)
    assert circuit.probing
    for _ in range(7):
        circuit.broken(CUT, "k", probe=True)
    circuit.good()
    assert not circuit.probing and circuit.failed_probes == 0


def test_one_request_that_the_server_replies_to_with_errors_is_not_the_endpoint() -> None:
    circuit = Circuit("X", 8, 900)
    for _ in range(50):
        circuit.broken(Broken("500", "oops", doubtful=False), "k", probe=circuit.probing)
    assert circuit.alone() and not circuit.probing
    circuit.broken(Broken("500", "oops", doubtful=False), "l", probe=False)
    assert circuit.probing and not circuit.alone()


def test_nothing_but_429_for_too_long_is_down() -> None:
    clock = Clock()
    circuit = Circuit("X", 8, 900, clock)
    circuit.limited(Limited("slow down", 1.0))
    clock.now += 899
    circuit.limited(Limited("slow down", 1.0))
    circuit.good()
    clock.now += 10_000
    circuit.limited(Limited("slow down", 1.0))
    clock.now += 901
    with pytest.raises(Hopeless, match="429 to everything"):
        circuit.limited(Limited("slow down", 1.0))
