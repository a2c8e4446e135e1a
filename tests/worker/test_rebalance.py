"""What a worker does around a rebalance, step by step, with Faust's side played by the test."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from stream.agents.sink import SinkAgent
from stream.archive.objects import MemoryStore
from stream.kafka.app import WorkerConsumer, begin_at_first
from stream.metrics import Metrics
from stream.settings import Settings

IMPRESSIONS = [TP("impressions", number) for number in range(3)]
AUDIT = TP("explanation-audit", 0)


class Half:
    """As much of a consumer as is asked for here."""

    def __init__(self) -> None:
        self.app = SimpleNamespace(
            topics=SimpleNamespace(acks_enabled_for=lambda topic: topic == "impressions"),
            finished={IMPRESSIONS[2]: 77},
            consumer_generation_id=1,
        )
        self.sought: dict[TP, int] = {}
        self.paused: set[TP] = set()

    def assignment(self) -> set[TP]:
        return {*IMPRESSIONS, AUDIT}

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 0 if AUDIT in tps else 5)

    async def highwaters(self, *tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 10)

    async def seek(self, tp: TP, offset: int) -> None:
        self.sought[tp] = offset

    def committed(self, tp: TP) -> int | None:
        return {IMPRESSIONS[1]: 40, IMPRESSIONS[2]: 70}.get(tp)

    def read_position(self, _tp: TP) -> int | None:
        return None

    def stop_reading(self, tp: TP) -> None:
        self.paused.add(tp)

    def resume_partitions(self, tps: set[TP]) -> None:
        self.paused -= tps


def test_where_nothing_is_committed_reading_begins_at_the_beginning_and_the_lag_is_known() -> None:
    half = Half()
    asyncio.run(begin_at_first(cast("WorkerConsumer", half)))
    assert half.sought == {IMPRESSIONS[0]: 5}
    assert half.app.finished == {IMPRESSIONS[0]: 5, IMPRESSIONS[1]: 40, IMPRESSIONS[2]: 77}


def test_what_was_acknowledged_during_a_commit_is_committed_too() -> None:
    class Slow:
        acknowledged = committed = 0
        under_way: asyncio.Task[bool] | None = None

        async def commit(self) -> bool:
            """As Faust has it: whoever comes during a commit waits for it, and does none."""
            if self.under_way is not None and not self.under_way.done():
                await self.under_way
                return False
            self.under_way = asyncio.create_task(self._commit(self.acknowledged))
            return await self.under_way

        async def _commit(self, offset: int) -> bool:
            await asyncio.sleep(0.01)
            self.committed = offset
            return True

    async def story() -> None:
        slow = Slow()
        periodic = asyncio.create_task(slow.commit())
        await asyncio.sleep(0.001)
        slow.acknowledged = 64
        await WorkerConsumer.commit_all(cast("WorkerConsumer", slow))
        assert slow.committed == 64
        await periodic

    asyncio.run(story())


@pytest.mark.parametrize("fault", ["hangs", "fails"])
def test_a_broker_that_does_not_say_where_the_audit_begins_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr("stream.agents.sink._OPEN_LIMIT_S", 0.05)

    class Silent(Half):
        asked = 0

        async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
            self.asked += 1
            if self.asked > 1:
                return await super().earliest_offsets(*tps)
            if fault == "fails":
                raise KafkaConnectionError
            await asyncio.sleep(60)
            raise AssertionError

    async def story() -> None:
        half = Silent()
        agent = sink_agent(half)
        await agent.resume(cast("WorkerConsumer", half))
        assert half.paused == {AUDIT}
        assert stuck(agent) == 1
        await opened(agent, half)
        assert stuck(agent) == 0

    asyncio.run(story())


def test_a_partition_that_was_never_opened_is_opened_when_its_records_come() -> None:
    async def story() -> None:
        half = Half()
        agent = sink_agent(half)
        message = SimpleNamespace(tp=AUDIT, generation_id=1, partition=0, offset=3, key=None, value=b"", headers=())

        async def stream() -> Any:
            yield [SimpleNamespace(message=message)]

        await agent.body(SimpleNamespace(noack_take=lambda *_args, **_named: stream()))
        await opened(agent, half)

    asyncio.run(story())


def sink_agent(half: Half) -> SinkAgent:
    app = SimpleNamespace(
        settings=Settings(),
        give_up=lambda error: pytest.fail(str(error)),
        consumer=half,
        metrics=Metrics(),
        **vars(half.app),
    )
    return SinkAgent(cast("Any", app), MemoryStore(), cast("Any", SimpleNamespace(decode=None)), cast("Any", None))


def stuck(agent: SinkAgent) -> float | None:
    return agent._app.metrics.registry.get_sample_value("whyrec_archive_stuck", {"partition": "0"})


async def opened(agent: SinkAgent, half: Half) -> None:
    async with asyncio.timeout(20):
        while half.paused or agent.sink.expected(0) is None:  # noqa: ASYNC110 (what is waited for happens in threads)
            await asyncio.sleep(0.01)
    assert half.sought[AUDIT] == 0
