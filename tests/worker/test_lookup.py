"""What the broker alone can say, asked of a real one or of what its client gives."""

from __future__ import annotations

import re

import pytest
from confluent_kafka import Uuid
from confluent_kafka.admin import TopicDescription

from stream.archive.log.commitlog import Chain, parse_key
from stream.kafka.lookup import topic_id


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
