"""A proxy before an S3 server that can be told to misbehave, the way networks and services do."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Final, Literal, Self

Mood = Literal["well", "refusing", "hanging", "failing", "unavailable", "cutting", "deaf"]
"""``refusing``: connections are reset. ``hanging``: requests are taken, nothing is said. ``failing``, ``unavailable``:
HTTP 500 and 503. ``cutting``: the connection breaks in the middle of a request's body. ``deaf``: the request is done,
and its answer is lost."""

_STATUS: Final[dict[str, bytes]] = {
    "failing": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "unavailable": b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}
_PIECE: Final = 65_536


class Proxy:
    """Listens on a free port and forwards to another; ``mood`` counts for every request from then on.

    ``only`` restricts it to requests whose first line contains this. ``hits`` counts those ill treated.
    """

    def __init__(self, target_port: int) -> None:
        self.mood: Mood = "well"
        self.only: bytes | None = None
        self.cut_after = 0
        self.hits = 0
        self.port = 0
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one_request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _one_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        mood = self.mood if self.only is None or self.only in head.partition(b"\r\n")[0] else "well"
        if mood != "well":
            self.hits += 1
        if mood == "refusing":
            return False
        if mood == "hanging":
            while self.mood == "hanging":  # noqa: ASYNC110 - set from another thread
                await asyncio.sleep(0.05)
            return False
        if b"expect: 100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            lines = head.split(b"\r\n")
            head = b"\r\n".join(line for line in lines if not line.lower().startswith(b"expect:"))
        if mood in _STATUS:
            await reader.readexactly(_length(head))
            writer.write(_STATUS[mood])
            await writer.drain()
            return False
        return await self._forward(head, reader, writer, mood)

    async def _forward(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mood: Mood
    ) -> bool:
        there, onward = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            onward.write(head)
            left = _length(head)
            cut_at = left - (self.cut_after or left // 2)
            while left:
                if mood == "cutting" and left <= cut_at:
                    return False
                piece = await reader.read(min(left, _PIECE, left - cut_at if mood == "cutting" else left))
                if not piece:
                    return False
                left -= len(piece)
                onward.write(piece)
                await onward.drain()
            if mood == "cutting":
                return False
            answer = await there.readuntil(b"\r\n\r\n")
            while answer.startswith(b"HTTP/1.1 100"):
                answer = await there.readuntil(b"\r\n\r\n")
            if mood == "deaf":
                return False
            writer.write(answer)
            await self._answer_body(head, answer, there, writer)
            await writer.drain()
            return b"connection: close" not in answer.lower()
        finally:
            onward.close()
            with contextlib.suppress(ConnectionError):
                await onward.wait_closed()

    async def _answer_body(
        self, head: bytes, answer: bytes, there: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if head.startswith(b"HEAD") or answer.split(b" ", 2)[1] in (b"204", b"304"):
            return
        if b"transfer-encoding: chunked" in answer.lower():
            while True:
                size = await there.readuntil(b"\r\n")
                writer.write(size + await there.readexactly(int(size, 16) + 2))
                if int(size, 16) == 0:
                    return
        writer.write(await there.readexactly(_length(answer)))


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
