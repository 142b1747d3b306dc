"""Work is bounded: what is refused, what waits, what takes too long."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, Gauge

from pipeline.sections.serving import ServingConfig
from pipeline.serving.service import Pool
from pipeline.serving.tensors import RequestError


@pytest.fixture
def taken() -> Gauge:
    return Gauge("taken", "Places.", registry=CollectorRegistry())


def count(gauge: Gauge) -> float:
    return gauge.collect()[0].samples[0].value


async def body() -> bytes:
    return b"body"


def blocked(event: threading.Event) -> Callable[[bytes], bytes]:
    def compute(read: bytes) -> bytes:
        assert event.wait(30)
        return read.upper()

    return compute


def test_what_exceeds_workers_and_queue_is_refused_at_once(taken: Gauge):
    pool, event = Pool(ServingConfig(workers=1, queue=1), taken), threading.Event()

    async def ask() -> list[bytes]:
        under_way = [asyncio.create_task(pool.run(body, blocked(event))) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert count(taken) == 2
        with pytest.raises(RequestError, match="busy: serving.workers=1 .* serving.queue=1 wait") as refused:
            await pool.run(body, blocked(event))
        assert refused.value.status == 503
        event.set()
        answers = await asyncio.gather(*under_way)
        return [*answers, await pool.run(body, blocked(event))]

    assert asyncio.run(ask()) == [b"BODY"] * 3
    assert count(taken) == 0


def test_a_computation_that_nobody_waits_for_any_more_keeps_its_place_until_it_ends(taken: Gauge):
    pool, event = Pool(ServingConfig(workers=1, queue=0, timeout_seconds=0.1), taken), threading.Event()

    async def ask() -> bytes:
        with pytest.raises(RequestError, match="no answer within serving.timeout_seconds=0.1") as late:
            await pool.run(body, blocked(event))
        assert late.value.status == 504
        with pytest.raises(RequestError, match="busy"):
            await pool.run(body, blocked(event))
        event.set()
        while count(taken):
            await asyncio.sleep(0.01)
        return await pool.run(body, blocked(event))

    assert asyncio.run(ask()) == b"BODY"


def test_a_request_that_waited_too_long_is_never_computed(taken: Gauge):
    pool, event, computed = Pool(ServingConfig(workers=1, queue=1, timeout_seconds=0.1), taken), threading.Event(), []

    async def ask() -> None:
        waiting = [pool.run(body, blocked(event)), pool.run(body, lambda read: computed.append(read) or read)]
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(answer, RequestError) for answer in answers)
        event.set()
        while count(taken):
            await asyncio.sleep(0.01)

    asyncio.run(ask())
    assert computed == []


def test_a_body_that_does_not_arrive_gives_its_place_free(taken: Gauge):
    pool = Pool(ServingConfig(timeout_seconds=0.05), taken)

    async def never() -> bytes:
        await asyncio.sleep(60)
        return b""

    async def ask() -> None:
        with pytest.raises(RequestError, match="the body did not arrive") as late:
            await pool.run(never, lambda read: read)
        assert late.value.status == 408

    asyncio.run(ask())
    assert count(taken) == 0
