"""The sink agent as a process between a broker and an archive: nothing lost, nothing twice."""

from __future__ import annotations

import signal
from pathlib import Path

from stream.archive.store import open_store
from stream.embedded import EmbeddedBroker
from stream.topics import TOPICS
from tests.archive.checks import archived_items, items_of, verdict_of
from tests.archive.sink_process import AuditProducer, SinkProcess, eventually


def test_on_the_embedded_broker_across_a_kill_and_a_clean_end(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "archive"))
    expected = [item for partition in range(4) for item in items_of(partition, range(400))]
    with EmbeddedBroker([topic.name for topic in TOPICS.values()]) as broker:
        producer = AuditProducer(broker.bootstrap_servers)
        sink = SinkProcess(broker.bootstrap_servers, store.url, tmp_path / "sink.log")
        with sink:
            for partition in range(4):
                producer.send(partition, range(200))
            assert eventually(lambda: len(archived_items(store)) >= 400)
            sink.signal(signal.SIGKILL)
            for partition in range(4):
                # An explain worker that was killed repeats itself.
                producer.send(partition, range(150, 300))
            sink.start()
            assert eventually(lambda: len(archived_items(store)) >= 2400)
            for partition in range(4):
                producer.send(partition, range(300, 400))
            assert eventually(lambda: len(archived_items(store)) >= len(expected))
            sink.signal(signal.SIGTERM)
    assert archived_items(store) == expected
    verdict = verdict_of(store)
    assert verdict.sound, verdict.findings
    assert verdict.rows == len(expected)
