"""Where a worker is made to die, fail or dawdle: steps of the real code, wrapped from outside, in its own process.

The product knows nothing of this. A step is a place in the life of a record, before or after one call::

    explain   1 gathered ─ 2 answered ─ 3 audits sent ─ 4 explanations sent ─ 5 delivered ─ 6 acknowledged ─ committed
    sink      1 decoded ─ 2 objects, one by one ─ 3 entry ─ 4 committed to Kafka
"""

from __future__ import annotations

import inspect
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from stream.agents.batch import BatchWork
from stream.agents.explain import ExplainAgent
from stream.archive.log import commitlog
from stream.archive.objects import Retrying
from stream.archive.writing.decode import Decoder
from stream.kafka.app import WorkerConsumer
from stream.kafka.delivery import Delivery, Output

Moment = Literal["before", "after"]
What = Literal["kill", "raise", "dawdle"]

DAWDLE_S: Final = 0.3


class Planned(Exception):
    """The defect that a test asked for."""


@dataclass(frozen=True)
class Point:
    """One call in the worker, of which only some count: those whose arguments ``counts`` admits."""

    owner: Any
    name: str
    counts: Callable[..., bool] = lambda *_, **__: True


def _is_entry(_store: Any, key: str, *_: Any, **__: Any) -> bool:
    return key.startswith(commitlog.COMMITS)


def _goes_to(outputs: Sequence[Output], topic: str) -> bool:
    return len(outputs) > 0 and outputs[0].topic.startswith(topic)


SINK: Final[dict[str, Point]] = {
    "decode": Point(Decoder, "decode", lambda _self, records: len(records) > 0),
    "object": Point(Retrying, "put"),
    "entry": Point(Retrying, "put_if_absent", _is_entry),
    "committed to Kafka": Point(WorkerConsumer, "commit_offsets"),
}
EXPLAIN: Final[dict[str, Point]] = {
    "answer": Point(BatchWork, "answer"),
    "send audits": Point(Delivery, "send", lambda _self, outputs: _goes_to(outputs, "audit")),
    "send explanations": Point(Delivery, "send", lambda _self, outputs: _goes_to(outputs, "explanations")),
    "acknowledge": Point(ExplainAgent, "_acknowledge"),
    "commit": Point(WorkerConsumer, "commit"),
}
POINTS: Final = SINK | EXPLAIN


@dataclass(frozen=True)
class Fault:
    """What happens ``moment`` the ``nth`` call (from 0) of a step; ``dawdle`` happens at every call from then on."""

    point: str
    moment: Moment = "before"
    nth: int = 0
    what: What = "kill"

    def arm(self) -> None:
        """Wrap the step, in this process."""
        point = POINTS[self.point]
        inner = getattr(point.owner, point.name)  # fails loudly where the product no longer has such a step
        calls = 0

        def strike(moment: Moment, number: int | None) -> None:
            if number is None or moment != self.moment:
                return
            if self.what == "dawdle" and number >= self.nth:
                time.sleep(DAWDLE_S)
            elif number == self.nth:
                if self.what == "raise":
                    raise Planned(f"at {self.point}, as planned")
                os.kill(os.getpid(), signal.SIGKILL)

        def count(*arguments: Any, **named: Any) -> int | None:
            nonlocal calls
            if not point.counts(*arguments, **named):
                return None
            calls += 1
            return calls - 1

        def called(*arguments: Any, **named: Any) -> Any:
            number = count(*arguments, **named)
            strike("before", number)
            answer = inner(*arguments, **named)
            strike("after", number)
            return answer

        async def awaited(*arguments: Any, **named: Any) -> Any:
            number = count(*arguments, **named)
            strike("before", number)
            answer = await inner(*arguments, **named)
            strike("after", number)
            return answer

        setattr(point.owner, point.name, awaited if inspect.iscoroutinefunction(inner) else called)
