"""What the broker alone can say, asked of a real one or of what its client gives."""

from __future__ import annotations

import re

import pytest
from confluent_kafka import KafkaError, KafkaException, Uuid
from confluent_kafka.admin import TopicDescription

from stream.archive.log.commitlog import Chain, parse_key
from stream.kafka.lookup import first_changed, topic_id
from stream.service import stop_when_recreated


@pytest.mark.parametrize(
    ("halves", "printed"),
    [
        ((-1, -1), "_____________________w"),
        ((-289360691352306693, -289360691352306693), "-_v7-_v7-_v7-_v7-_v7-w"),
        ((0, 1), "AAAAAAAAAAAAAAAAAAAAAQ"),
    ],
)
def test_a_topics_id_is_written_as_kafka_writes_it_and_is_no_folder(halves: tuple[int, int], printed: str) -> None:
    found = topic_id(TopicDescription("audit", Uuid(*halves), False, []))
    assert found == printed
    assert re.fullmatch("[A-Za-z0-9_-]{22}", found)
    chain = Chain(f"audit~{found}", 3)
    assert parse_key(chain.key(7)) == (chain, 7)


def test_a_broker_without_ids() -> None:
    assert topic_id(TopicDescription("audit", None, False, [])) is None


def test_a_broker_that_is_away_does_not_end_the_watch_for_recreated_topics() -> None:
    answers = iter([KafkaException(KafkaError(KafkaError._TRANSPORT)), "same", "other"])

    def id_of(_topic: str) -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert first_changed({"audit": "same"}, id_of, every_s=0) == "audit"


def test_a_worker_ends_when_a_topic_is_recreated_and_when_the_watch_fails() -> None:
    def fail() -> str:
        raise ZeroDivisionError("a defect")

    reasons: list[BaseException] = []
    stop_when_recreated(lambda: "audit", reasons.append)
    stop_when_recreated(fail, reasons.append)
    stop_when_recreated(lambda: None, reasons.append)
    recreated, failed = reasons
    assert "audit was deleted and created again" in str(recreated)
    assert isinstance(failed, ZeroDivisionError)
