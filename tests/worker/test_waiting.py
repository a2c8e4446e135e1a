"""A message that a stream takes at once needs no task; a message that waits can still be cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stream.kafka.border import continued


def begin(coroutine: Any) -> Any:
    """Run a coroutine up to where it waits, and return what goes on with it."""
    return continued(coroutine, coroutine.send(None))


def test_a_coroutine_that_waits_is_gone_on_with() -> None:
    async def story() -> None:
        opened = asyncio.Event()

        async def wait() -> str:
            await opened.wait()
            await asyncio.sleep(0)
            return "done"

        going_on = asyncio.create_task(begin(wait()))
        await asyncio.sleep(0.01)
        assert not going_on.done()
        opened.set()
        assert await going_on == "done"

    asyncio.run(story())


def test_what_it_raises_is_raised() -> None:
    async def story() -> None:
        async def fail() -> None:
            await asyncio.sleep(0)
            raise ValueError("as it should")

        with pytest.raises(ValueError, match="as it should"):
            await begin(fail())

    asyncio.run(story())


def test_a_cancellation_reaches_it() -> None:
    async def story() -> None:
        cleaned = []

        async def hold() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append(True)

        holding = asyncio.create_task(begin(hold()))
        await asyncio.sleep(0)
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding
        assert cleaned == [True]

    asyncio.run(story())
