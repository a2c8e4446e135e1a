"""The servers of docker-compose.yml, started from its own configuration, without containers."""

from __future__ import annotations

import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import s3fs
from confluent_kafka.admin import AdminClient

from tests.deploy.conftest import Services
from tests.parts import s3_server
from tests.parts.kafka import Kafka
from tests.parts.process import ServerProcess, accepts_connections, free_port

IMAGE_ONLY = {"CLUSTER_ID", "KAFKA_HEAP_OPTS"}


def properties_of(environment: dict[str, str]) -> str:
    """What the image makes of its variables: KAFKA_NODE_ID becomes node.id."""
    lines = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environment.items()
        if name not in IMAGE_ONLY
    }
    # One machine instead of a network, and ports that are free on it.
    lines["log.dirs"] = "{logs}"
    for key in ("listeners", "advertised.listeners"):
        kept = [entry for entry in lines[key].split(",") if not entry.startswith("HOST:")]
        lines[key] = (
            ",".join(kept).replace("//kafka:", "//:").replace("//:", "//127.0.0.1:").replace(":9092", ":{port}")
        )
        lines[key] = lines[key].replace(":9093", ":{controller_port}")
    lines["controller.quorum.voters"] = lines["controller.quorum.voters"].replace(
        "kafka:9093", "127.0.0.1:{controller_port}"
    )
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def test_kafka_starts_with_this_configuration(services: Services) -> None:
    environment: dict[str, Any] = services["kafka"]["environment"]
    with Kafka(properties_of(environment), environment["CLUSTER_ID"]) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        described = admin.describe_cluster(request_timeout=10).result(20)
    assert described.cluster_id == environment["CLUSTER_ID"]


def test_the_s3_server_starts_with_this_command_and_has_the_bucket(services: Services, tmp_path: Path) -> None:
    server, port = services["s3"], free_port()
    make = [word.replace("/data", str(tmp_path / "data")) for word in services["s3-bucket-init"]["entrypoint"]]
    subprocess.run(make, check=True)
    arguments = [
        word.replace(":7070", f"127.0.0.1:{port}").replace("/data", str(tmp_path / "data"))
        for word in server["command"]
    ]
    keys = server["environment"]
    command = ["env", *(f"{name}={value}" for name, value in keys.items()), str(s3_server.fetch()), *arguments]
    process = ServerProcess("s3", command, ready=lambda: accepts_connections(port), directory=tmp_path)
    process.start()
    try:
        checked = server["healthcheck"]["test"][-1].replace(":7070", f":{port}")
        with urllib.request.urlopen(checked, timeout=5) as answer:  # noqa: S310 - the compose file's own URL
            assert answer.status == 200
        worker = services["worker"]["environment"]
        store = s3fs.S3FileSystem(
            endpoint_url=f"http://127.0.0.1:{port}",
            key=worker["WHYREC_S3_ACCESS_KEY_ID"],
            secret=worker["WHYREC_S3_SECRET_ACCESS_KEY"],
            skip_instance_cache=True,
        )
        store.pipe_file(f"{worker['WHYREC_ARCHIVE_URL']}/object", b"first", mode="create")
        assert store.cat_file(f"{worker['WHYREC_ARCHIVE_URL']}/object") == b"first"
    finally:
        process.kill()
