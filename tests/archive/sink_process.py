"""A worker with the sink agent alone, as a process of its own: what a crash does to it is real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.codec import Codec
from tests.archive.checks import eventually
from tests.archive.slates_of import audit


class SinkProcess:
    """``whyrec worker --agents sink`` with small limits; its log goes to a file that a failing test shows."""

    def __init__(self, bootstrap: str, archive_url: str, log: Path, environment: dict[str, str] | None = None) -> None:
        self._log = log
        self._environment = os.environ | {
            "WHYREC_BOOTSTRAP_SERVERS": bootstrap,
            "WHYREC_ARCHIVE_URL": archive_url,
            "WHYREC_FLUSH_MAX_AGE_S": "1",
            "WHYREC_SESSION_TIMEOUT_S": "6",
            "WHYREC_SHUTDOWN_TIMEOUT_S": "10",
            "WHYREC_METRICS_PORT": "0",
            "WHYREC_LOG_FORMAT": "json",
            "OMP_NUM_THREADS": "1",
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            sys.stderr.write(self.log[-8000:])
        self.signal(signal.SIGKILL)

    def start(self) -> None:
        with self._log.open("ab") as log:
            code = "from stream.service import run; from stream.settings import Settings; run(Settings(), ['sink'])"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], env=self._environment, stderr=log, stdout=log
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; one that ends the process is waited for."""
        if self._process is None:
            return
        self._process.send_signal(number)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self._process.wait(timeout=60)
            self._process = None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")


class AuditProducer:
    """Sends audit records as the explain agent would: to the partition of their impression, with its offset."""

    def __init__(self, bootstrap: str, topic: str = "explanation-audit") -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
        self._bootstrap = bootstrap
        self._codec = Codec()
        self._topic = topic

    def send(
        self, partition: int, source_offsets: range | list[int], *, region: str = "EU", days: int = 1, day: int = 0
    ) -> None:
        """Send records; their events lie on ``days`` days in turn, the first of which is ``day``."""
        for source_offset in source_offsets:
            record = audit(source_offset, partition=partition, region=region, day=day + source_offset % days)
            encoded = self._codec.encode("audit", record, self._topic)
            self.send_raw(partition, encoded.value, encoded.headers)
        self.flush()

    def send_raw(self, partition: int, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        self._producer.produce(self._topic, value=value, headers=headers, partition=partition)
        self._producer.poll(0)

    def send_in_transaction(self, partition: int, source_offsets: range) -> None:
        """Send in one transaction, whose end takes an offset that holds no record."""
        settings = {"bootstrap.servers": self._bootstrap, "log_level": 0, "transactional.id": uuid.uuid4().hex}
        before, self._producer = self._producer, Producer(settings)
        self._producer.init_transactions(30)
        self._producer.begin_transaction()
        self.send(partition, source_offsets)
        high = self._high(partition)
        self._producer.commit_transaction(30)
        self._producer = before
        # The broker marks the end a moment after it has said that the transaction is committed.
        assert eventually(lambda: self._high(partition) > high)

    def _high(self, partition: int) -> int:
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": "test-look", "log_level": 0})
        try:
            _, high = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=10)
        finally:
            consumer.close()
        return int(high)

    def flush(self) -> None:
        assert self._producer.flush(30) == 0
