"""docker-compose.yml without containers: the commands of its services, with their environments, on the real servers.

The package is the one that the image installs, the commands are the image's entry point and the services' own; only
addresses, topic names, durations and ports are replaced by those of this run.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
import s3fs
from confluent_kafka import Consumer, TopicPartition

from stream.kafka.topics import TOPICS
from tests.deploy.conftest import Services
from tests.deploy.dockerfile import ROOT
from tests.deploy.image import Image
from tests.deploy.test_alerts import RULES, metrics_of
from tests.parts.kafka import Kafka
from tests.parts.process import free_port
from tests.parts.s3_server import S3Server
from tests.parts.schema_registry import SchemaRegistry

SLATES = 60
ITEMS = 20
PATIENCE_S = 120.0


@dataclass
class Deployment:
    """The services of this run: their environments, and the processes that stand for containers."""

    image: Image
    services: Services
    environment: dict[str, str]
    folder: Path
    workers: list[tuple[subprocess.Popen[bytes], int]]

    def one_shot(self, name: str, *, changed: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a service that ends by itself."""
        arguments = [(changed or {}).get(word, word) for word in self.services[name]["command"]]
        return self.image.run(self.image.command(arguments), self.environment)

    def start_workers(self) -> None:
        """Start as many as the compose file says; each has its own port here, where they share one machine."""
        service = self.services["worker"]
        for number in range(service["deploy"]["replicas"]):
            port = free_port()
            with (self.folder / f"worker-{number}.log").open("wb") as log:
                process = subprocess.Popen(
                    self.image.command(service["command"]),
                    cwd=self.image.home,
                    env=self.image.environment(
                        self.environment | {"WHYREC_METRICS_PORT": str(port), "WHYREC_WORKER_NAME": f"worker-{number}"}
                    ),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self.workers.append((process, port))

    def healthy(self, port: int, question: str) -> subprocess.CompletedProcess[str]:
        """Ask as the container's health check does."""
        script = str(ROOT / "deploy" / "healthcheck.py")
        return self.image.run(["python", script, question], {"WHYREC_METRICS_PORT": str(port)})

    def until_ready(self, port: int) -> None:
        self.until(lambda: self.healthy(port, "ready").returncode == 0, "a worker is ready")

    def logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))

    def until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait for it, as long as the workers run."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            ended = [process.returncode for process, _ in self.workers if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                pytest.fail(f"waiting until {what}; workers ended: {ended}\n{self.logs()}")
            time.sleep(0.5)


@pytest.fixture
def deployment(
    image: Image,
    services: Services,
    kafka: Kafka,
    schema_registry: SchemaRegistry,
    s3_server: S3Server,
    s3_url: str,
    tmp_path: Path,
) -> Iterator[Deployment]:
    composed: dict[str, str] = services["worker"]["environment"]
    run = uuid.uuid4().hex[:8]
    here = {
        "WHYREC_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "WHYREC_SCHEMA_REGISTRY_URL": schema_registry.url,
        "WHYREC_ARCHIVE_URL": s3_url,
        "WHYREC_S3_ENDPOINT_URL": s3_server.endpoint_url,
        "WHYREC_S3_ACCESS_KEY_ID": s3_server.access_key,
        "WHYREC_S3_SECRET_ACCESS_KEY": s3_server.secret_key,
        "WHYREC_FLUSH_MAX_AGE_S": "2",
    }
    assert here.keys() <= composed.keys()  # nothing is told to the services here that the compose file does not tell
    own = {f"WHYREC_{role.upper()}_TOPIC": f"test-{run}-{role}" for role in TOPICS}
    deployment = Deployment(image, services, composed | here | own | {"WHYREC_CONSUMER_GROUP": run}, tmp_path, [])
    yield deployment
    for process, _ in deployment.workers:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_what_is_installed_is_everything_that_a_checkout_has(image: Image) -> None:
    # Modules and data that a checkout has and the installed package lacks fail only in production.
    files = [path for package in ("schemas", "models", "stream") for path in (image.context / package).rglob("*.*")]
    had = [path.relative_to(image.context) for path in files if path.is_file()]
    assert len(had) > 50
    assert [str(path) for path in had if not (image.site / path).is_file()] == []


@pytest.mark.slow
def test_the_installed_command_runs_from_the_image_not_from_the_checkout(image: Image, tmp_path: Path) -> None:
    where = image.run(["python", "-c", "import stream, models, schemas; print(stream.__file__, models.__file__)"])
    assert where.stdout.split() == [str(image.site / package / "__init__.py") for package in ("stream", "models")]
    helped = image.run(["whyrec", "--help"])
    assert helped.returncode == 0, helped.stderr
    assert "worker" in helped.stdout


def test_the_composed_service_explains_and_archives_all(deployment: Deployment, s3_server: S3Server) -> None:
    for name in ("topics-init", "schemas-init"):
        done = deployment.one_shot(name)
        assert done.returncode == 0, done.stderr

    deployment.start_workers()
    ports = [port for _, port in deployment.workers]
    for port in ports:
        deployment.until_ready(port)
        assert deployment.healthy(port, "live").returncode == 0

    rate, seconds = "20", "600"
    assert {rate, seconds} <= set(deployment.services["producer"]["command"])
    produced = deployment.one_shot("producer", changed={"600": str(SLATES / float(rate))})
    assert produced.returncode == 0, produced.stderr
    sent = re.search(r"delivered ([\d,]+)", produced.stdout)
    assert sent is not None, produced.stdout
    slates = int(sent[1].replace(",", ""))
    assert slates > 0

    deployment.until(lambda: _total(deployment, "whyrec_explanations_total") >= slates, "all slates are explained")
    deployment.until(
        lambda: _total(deployment, "whyrec_archived_rows_total") >= slates * ITEMS, "all rows are archived"
    )
    assert _total(deployment, "whyrec_dead_letters_total") == 0
    assert _messages(deployment, "explanations") == slates
    scraped = _scrape(deployment)
    without_children = {"whyrec_dead_letters_total"}  # appears with the first one
    for name in {name for rule in RULES for name in metrics_of(rule["expr"])} - {"up"} - without_children:
        assert name in scraped, name

    for process, _ in deployment.workers:
        process.send_signal(signal.SIGTERM)
    grace_s = float(deployment.services["worker"]["stop_grace_period"].removesuffix("s"))
    assert [process.wait(grace_s) for process, _ in deployment.workers] == [0, 0], deployment.logs()

    verified = deployment.image.run(deployment.image.command(["archive", "verify", "--deep"]), deployment.environment)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert _rows(deployment, s3_server) == slates * ITEMS


def _total(deployment: Deployment, name: str) -> float:
    """The sum of a counter over the workers and its labels."""
    values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", _scrape(deployment), re.MULTILINE)
    return sum(map(float, values))


def _scrape(deployment: Deployment) -> str:
    """The metrics of all workers, as Prometheus gets them."""
    pages = []
    for _, port in deployment.workers:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            pages.append(answer.read().decode())
    return "\n".join(pages)


def _messages(deployment: Deployment, role: str) -> int:
    consumer = Consumer({"bootstrap.servers": deployment.environment["WHYREC_BOOTSTRAP_SERVERS"], "group.id": "count"})
    try:
        topic = deployment.environment[f"WHYREC_{role.upper()}_TOPIC"]
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        marks = [consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10) for number in partitions]
        return sum(high - low for low, high in marks)
    finally:
        consumer.close()


def _rows(deployment: Deployment, s3_server: S3Server) -> int:
    """What a stock reader finds in the archive."""
    store = s3fs.S3FileSystem(
        endpoint_url=s3_server.endpoint_url,
        key=s3_server.access_key,
        secret=s3_server.secret_key,
        skip_instance_cache=True,
    )
    archive = deployment.environment["WHYREC_ARCHIVE_URL"]
    local = deployment.folder / "archive"
    store.get(archive, str(local), recursive=True)
    with duckdb.connect() as connection:
        (found,) = connection.sql(f"select count(*) from read_parquet('{local}/**/*.parquet')").fetchall()  # noqa: S608
    return int(found[0])
