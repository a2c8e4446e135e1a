"""Apache Kafka: one KRaft node, broker and controller in one process, as the project publishes it."""

from __future__ import annotations

import base64
import subprocess
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.parts import cache
from tests.parts.foreground import until_interrupted
from tests.parts.process import ServerFailed, ServerProcess, accepts_connections, free_port
from tests.parts.server import Server

VERSION = "4.3.1"
KEPT = f"kafka-{VERSION}"
COORDINATES = [
    f"org.apache.kafka:kafka_2.13:{VERSION}",
    "org.slf4j:slf4j-simple:1.7.36",  # without a binding the broker would say nothing when it fails
]
# Topics are not made on first use, as in most production clusters: a service that forgot to create one must fail here.
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={logs}
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# A broker that comes back after a crash waits until its former self counts as gone.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
"""
# The optimising compiler would take a core for the first minute, and most brokers here do not live as long.
JAVA_OPTIONS = [
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
]


class Kafka(Server):
    """A broker on free local ports, with its data in a temporary folder that goes with it.

    `properties` is its configuration, in which {port}, {controller_port} and {logs} stand for what is chosen here.
    `bootstrap` is its address; `stop`, `kill` and `start` take it away and bring it back, with its address and data.
    """

    def __init__(self, properties: str = PROPERTIES, cluster: str | None = None) -> None:
        super().__init__("kafka")
        java = cache.java()
        jars = fetch()
        self._port, controller_port = free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{self._port}"
        configuration = self.directory / "server.properties"
        logs = self.directory / "logs"
        configuration.write_text(properties.format(port=self._port, controller_port=controller_port, logs=logs))
        self._run = [java, *JAVA_OPTIONS, "-cp", f"{jars}/*"]
        self._properties = str(configuration)
        self._cluster = cluster or _new_cluster()
        self.process = ServerProcess(
            "kafka", [*self._run, "kafka.Kafka", self._properties], ready=self._answers, directory=self.directory
        )
        self._formatted = False

    def start(self) -> None:
        """Start the broker, or bring it back; returns when it answers."""
        if not self._formatted:
            self._format()
        super().start()

    def _format(self) -> None:
        tool = [*self._run, "kafka.tools.StorageTool", "format", "--config", self._properties]
        tool += ["--cluster-id", self._cluster]
        done = subprocess.run(tool, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServerFailed(f"formatting Kafka's storage failed: {done.stdout}\n{done.stderr}")
        self._formatted = True

    def _answers(self) -> bool:
        if not accepts_connections(self._port):
            return False
        try:
            admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            return len(admin.list_topics(timeout=5).brokers) == 1
        except KafkaException:
            return False


def fetch() -> Path:
    """The folder with the broker's jars, fetched on first use."""
    return cache.kept(KEPT, lambda folder: cache.fetch_jars(folder, COORDINATES))


def _new_cluster() -> str:
    """A cluster id as Kafka makes them: a UUID in URL-safe base64 that does not begin with a dash."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")


if __name__ == "__main__":
    until_interrupted(Kafka(), "bootstrap")
