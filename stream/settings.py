"""All settings in one frozen class, read from environment variables ``WHYREC_…``; names contain the unit."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream.kafka.topics import TOPICS, TopicRole

BUNDLED_MODEL = Path(__file__).parent.parent / "models" / "bundles" / "streamrec"
"""The trained bundle that whyrec includes."""

Positive = Annotated[int, Field(gt=0)]
PositiveSeconds = Annotated[float, Field(gt=0)]
PositiveHours = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """Settings of one worker; each field can be set as ``WHYREC_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="WHYREC_", frozen=True, extra="ignore")

    # Kafka
    bootstrap_servers: str = Field("127.0.0.1:9092", description="brokers, HOST:PORT separated by commas")
    consumer_group: str = Field("whyrec", description="consumer group of the agents")
    instance_id: str | None = Field(None, description="static group membership: a restart resumes without a rebalance")
    session_timeout_s: PositiveSeconds = Field(10.0, description="a worker that is silent for so long is replaced")
    impressions_topic: str = Field(TOPICS["impressions"].name, description=TOPICS["impressions"].doc)
    explanations_topic: str = Field(TOPICS["explanations"].name, description=TOPICS["explanations"].doc)
    audit_topic: str = Field(TOPICS["audit"].name, description=TOPICS["audit"].doc)
    dead_letters_topic: str = Field(TOPICS["dead_letters"].name, description=TOPICS["dead_letters"].doc)
    control_topic: str = Field(TOPICS["control"].name, description=TOPICS["control"].doc)
    partitions: Positive = Field(12, description="partitions of a topic that `whyrec topics create` makes")
    replication_factor: Positive = Field(1, description="replicas of such a topic")
    fetch_min_bytes: Positive = Field(64 * 1024, description="the broker answers a fetch when it has so many bytes")
    fetch_max_wait_ms: Positive = Field(
        10, description="or after this time; 250, and 1 MiB, for a worker with only the sink"
    )
    delivery_timeout_s: PositiveSeconds = Field(30.0, description="time for the broker to acknowledge an output")

    # Schema registry
    schema_registry_url: str | None = Field(None, description="without a registry, events are plain Avro")
    schema_registry_credentials: SecretStr | None = Field(None, description="USER:PASSWORD")

    # Explaining
    bundle_dir: Path = Field(BUNDLED_MODEL, description="the model bundle that ranks the slates")
    bundles_url: str | None = Field(
        None, description="folder, or s3://bucket/prefix, with a bundle for each version that serves, as NAME@VERSION"
    )
    max_bundles: Positive = Field(4, description="highest number of versions in memory")
    max_bundles_bytes: Positive = Field(
        4 * 1024**3, description="highest memory of all versions together, as measured when each was loaded"
    )
    bundle_idle_s: PositiveSeconds = Field(
        3600.0, description="a version that is not promoted is dropped after so long without a slate"
    )
    policy: Literal["evidence", "attention", "learned"] = Field(
        "evidence", description="which claims are admitted; learned needs a bundle with a selector"
    )
    max_exploration: Annotated[float, Field(ge=0, le=0.1)] = Field(
        0.1, description="highest share of items whose explanation type a selector may draw at random"
    )
    batch_max_slates: Positive = Field(64, description="highest number of slates explained together")
    batch_max_bytes: Positive = Field(256 * 1024, description="a batch ends when it has so many bytes")
    batch_max_wait_ms: Positive = Field(1, description="how long a batch waits to fill")
    batches_in_flight: Positive = Field(4, description="batches whose outputs may await acknowledgement at once")
    inference_threads: Positive = Field(1, description="threads of ONNX Runtime")

    # Archive
    archive_url: str = Field("archive", description="folder, or s3://bucket/prefix")
    s3_endpoint_url: str | None = Field(None, description="of an S3 service other than AWS")
    s3_access_key_id: SecretStr | None = Field(None, description="by default the usual AWS credential chain")
    s3_secret_access_key: SecretStr | None = Field(None, description="goes with s3_access_key_id")
    s3_region: str | None = Field(None, description="by default from the AWS environment")
    flush_max_rows: Positive = Field(1_000_000, description="rows held before a segment is written")
    flush_max_bytes: Positive = Field(
        128 * 1024 * 1024, description="bytes of audit records held before a segment is written"
    )
    flush_max_age_s: PositiveSeconds = Field(
        300.0, description="age of the oldest row held before a segment is written"
    )
    day_open_hours: PositiveHours = Field(6.0, description="hours after its end in which a day waits for late rows")
    signing_key_file: Path | None = Field(None, description="private key that signs digests or receipts (mode 600)")
    shutdown_timeout_s: PositiveSeconds = Field(30.0, description="time to finish what is in flight after SIGTERM")

    # Watching
    metrics_port: int = Field(9464, ge=0, le=65535, description="Prometheus metrics and readiness; 0 takes a free port")
    metrics_host: str = Field("127.0.0.1", description="address the metrics are served on; 0.0.0.0 for all")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: colour on a terminal, else JSON")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")
    worker_name: str = Field(default_factory=socket.gethostname, description="name of the writer in the archive")

    def topic(self, role: TopicRole) -> str:
        """Return the name of a topic."""
        names: dict[TopicRole, str] = {
            "impressions": self.impressions_topic,
            "explanations": self.explanations_topic,
            "audit": self.audit_topic,
            "dead_letters": self.dead_letters_topic,
            "control": self.control_topic,
        }
        return names[role]


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return f"WHYREC_{field.upper()}"


def faults(error: ValidationError) -> str:
    """Return one line that names each variable with an invalid value, and what is expected."""
    found = [
        f"{variable(str(each['loc'][0]))} is {each['input']!r}; {each['msg'][:1].lower()}{each['msg'][1:]}"
        for each in error.errors(include_url=False)
    ]
    return f"{', and '.join(found)}; correct or unset what is named here"
