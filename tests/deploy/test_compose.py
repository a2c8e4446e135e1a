"""docker-compose.yml cannot be started by a test; what can be said about it without containers is said here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from stream.settings import Settings
from tests.deploy.conftest import COMPOSE, Services
from tests.deploy.dockerfile import ROOT
from tests.parts import compose_spec, kafka, s3_server, schema_registry
from tests.parts.cache import PartUnavailable
from tests.parts.fixtures import unavailable

PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+[A-Za-z0-9.-]*")
OURS = re.compile(r"whyrec:(\S+)")


def test_the_specifications_parser_refuses_what_it_must(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text().replace("stop_grace_period:", "stop_grace_periods:"))
    try:
        with pytest.raises(compose_spec.InvalidCompose, match="stop_grace_periods"):
            compose_spec.parse(broken)
    except PartUnavailable as reason:
        unavailable(reason)


def test_the_whole_service_is_there(services: Services) -> None:
    expected = {"kafka", "schema-registry", "s3", "s3-bucket-init", "topics-init", "schemas-init", "worker", "producer"}
    assert {name for name, service in services.items() if "profiles" not in service} == expected
    assert services["worker"]["deploy"]["replicas"] == 2


def test_each_service_is_watched_or_ends_by_itself(services: Services) -> None:
    for name, service in services.items():
        check = service["healthcheck"]
        if check.get("disable"):
            assert service["restart"] == "no", f"{name} neither ends nor has a health check"
        else:
            assert check["test"][0] == "CMD", name
            assert {"interval", "timeout", "retries"} <= check.keys(), name
            assert service["restart"] == "unless-stopped", name


def test_a_dependency_is_waited_for_in_the_way_it_allows(services: Services) -> None:
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            ends = services[needed]["healthcheck"].get("disable", False)
            expected = "service_completed_successfully" if ends else "service_healthy"
            assert how["condition"] == expected, f"{name} waits for {needed}"


def test_images_are_pinned(services: Services) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name, service in services.items():
        assert PINNED.fullmatch(service["image"]), name
        ours = OURS.fullmatch(service["image"])
        assert (ours is not None) == ("build" in service), name
        if ours is not None:
            assert ours[1] == version, name
            assert (Path(service["build"]["context"]) / service["build"]["dockerfile"]).is_file(), name


def test_the_servers_are_the_versions_that_the_tests_run(services: Services) -> None:
    tags = {name: service["image"].rpartition(":")[2] for name, service in services.items()}
    assert tags["kafka"] == kafka.VERSION
    assert tags["schema-registry"] == schema_registry.VERSION
    assert tags["s3"] == tags["s3-bucket-init"] == s3_server.VERSION


def test_each_variable_is_a_setting_and_has_a_value_it_takes(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = 0
    for name, service in services.items():
        ours = {key: value for key, value in service.get("environment", {}).items() if key.startswith("WHYREC_")}
        if not ours:
            continue
        fields = {f"WHYREC_{field.upper()}" for field in Settings.model_fields}
        assert ours.keys() <= fields, name
        with monkeypatch.context() as context:
            for key, value in ours.items():
                context.setenv(key, value)
            settings = Settings()
        assert settings.archive_url == ours["WHYREC_ARCHIVE_URL"]
        assert settings.bootstrap_servers == ours["WHYREC_BOOTSTRAP_SERVERS"]
        checked += 1
    assert checked == sum("build" in service for service in services.values())


def test_addresses_name_services_and_ports_that_exist(services: Services) -> None:
    environment = services["worker"]["environment"]
    assert environment["WHYREC_BOOTSTRAP_SERVERS"] in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert environment["WHYREC_S3_ENDPOINT_URL"] == "http://s3:7070"
    assert ":7070" in services["s3"]["command"]
    assert environment["WHYREC_S3_REGION"] in services["s3"]["command"]
    registry_port = services["schema-registry"]["ports"][0]["target"]
    assert environment["WHYREC_SCHEMA_REGISTRY_URL"].startswith(f"http://schema-registry:{registry_port}/")
    bucket = environment["WHYREC_ARCHIVE_URL"].removeprefix("s3://").partition("/")[0]
    data = services["s3"]["command"][-1]
    assert services["s3-bucket-init"]["entrypoint"] == ["mkdir", "-p", f"{data}/{bucket}"]
    assert services["s3-bucket-init"]["volumes"] == services["s3"]["volumes"]


def test_worker_and_s3_server_agree_on_the_keys(services: Services) -> None:
    worker, server = services["worker"]["environment"], services["s3"]["environment"]
    assert worker["WHYREC_S3_ACCESS_KEY_ID"] == server["ROOT_ACCESS_KEY_ID"]
    assert worker["WHYREC_S3_SECRET_ACCESS_KEY"] == server["ROOT_SECRET_ACCESS_KEY"]


def test_secrets_are_defaults_that_say_what_they_are(services: Services) -> None:
    secret = re.compile(r"SECRET|PASSWORD|CREDENTIALS|ACCESS_KEY|TOKEN")
    found = 0
    for service in services.values():
        for key, value in service.get("environment", {}).items():
            if secret.search(key):
                assert value.startswith("dev-only-"), key
                found += 1
    assert found
    raw = yaml.safe_load(COMPOSE.read_text())["x-environment"]
    assert raw["WHYREC_S3_SECRET_ACCESS_KEY"] == "${WHYREC_DEV_SECRET_KEY:-dev-only-secret-key}"  # noqa: S105


def test_ports_are_open_to_this_machine_only(services: Services) -> None:
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name


def test_a_stopping_worker_is_given_the_time_it_may_take(services: Services) -> None:
    grace_s = float(services["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > Settings().shutdown_timeout_s


@pytest.mark.parametrize("name", ["topics-init", "schemas-init", "worker", "producer"])
def test_each_command_and_each_option_exists(services: Services, name: str) -> None:
    command: list[str] = services[name]["command"]
    words = [word for word in command if not word.startswith("-") and not word.replace(".", "").isdigit()]
    done = subprocess.run(
        [sys.executable, "-m", "stream.cli", *words, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"whyrec {' '.join(words)}" in " ".join(done.stdout.replace("python -m stream.cli", "whyrec").split())
    for option in (word for word in command if word.startswith("--")):
        assert option in done.stdout
