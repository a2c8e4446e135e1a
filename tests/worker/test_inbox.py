"""What a batch holds, and when it is taken."""

from __future__ import annotations

import threading
import time

from stream.agents.inbox import Inbox


def test_what_gathered_is_one_batch_in_the_order_it_came() -> None:
    inbox: Inbox[int] = Inbox(most=10, most_bytes=1000, wait_s=0)
    for number in range(7):
        inbox.put(number, 10)
    assert inbox.take() == list(range(7))
    assert len(inbox) == 0


def test_a_batch_ends_when_it_is_full() -> None:
    inbox: Inbox[int] = Inbox(most=3, most_bytes=1000, wait_s=60)
    for number in range(7):
        inbox.put(number, 10)
    assert inbox.take() == [0, 1, 2]
    assert inbox.take() == [3, 4, 5]
    assert len(inbox) == 1


def test_long_slates_make_short_batches() -> None:
    inbox: Inbox[str] = Inbox(most=64, most_bytes=100, wait_s=60)
    for name, size in (("long", 90), ("another", 90), ("third", 500), ("fourth", 100)):
        inbox.put(name, size)
    assert inbox.take() == ["long", "another"]
    assert inbox.take() == ["third"]
    assert inbox.take() == ["fourth"]


def test_whoever_takes_waits_for_the_first_message() -> None:
    inbox: Inbox[int] = Inbox(most=10, most_bytes=1000, wait_s=0)
    taken: list[list[int]] = []
    taking = threading.Thread(target=lambda: taken.append(inbox.take()))
    taking.start()
    inbox.put(1, 10)
    taking.join(30)
    assert taken == [[1]]


def test_a_message_that_stays_alone_is_taken_all_the_same() -> None:
    inbox: Inbox[int] = Inbox(most=10, most_bytes=1000, wait_s=0.01)
    inbox.put(1, 10)
    began = time.monotonic()
    assert inbox.take() == [1]
    assert time.monotonic() - began >= 0.01 - 0.005


def test_batches_count_as_unfinished_until_they_are_said_to_be_done() -> None:
    inbox: Inbox[int] = Inbox(most=1, most_bytes=1000, wait_s=0)
    inbox.put(1, 10)
    inbox.put(2, 10)
    assert inbox.unfinished == 0
    inbox.take()
    inbox.take()
    assert inbox.unfinished == 2
    inbox.finish()
    assert inbox.unfinished == 1


def test_what_is_forgotten_is_not_taken() -> None:
    inbox: Inbox[int] = Inbox(most=2, most_bytes=1000, wait_s=0)
    inbox.put(1, 10)
    inbox.clear()
    inbox.put(2, 10)
    assert inbox.take() == [2]
