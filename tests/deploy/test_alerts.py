"""Each alert asks for metrics that a worker publishes, by labels they have, and says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from stream.metrics import Metrics
from tests.deploy.dockerfile import stages

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
MADE_BY_PROMETHEUS = {"up"}
TARGET_LABELS = {"job", "instance"}
SUFFIXES: dict[str, dict[str, set[str]]] = {
    "counter": {"_total": set()},
    "gauge": {"": set()},
    "histogram": {"_bucket": {"le"}, "_count": set(), "_sum": set()},
}
WORDS = {"and", "or", "unless", "on", "ignoring", "by", "without", "group_left", "group_right", "bool", "offset"}
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
DURATION = re.compile(r"\[[^\]]*\]")
SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\(|\{[^}]*\})?")


def metrics_of(expression: str) -> set[str]:
    """Names of the metrics in a PromQL expression: words that are neither operators, functions nor labels."""
    bare = DURATION.sub(" ", GROUPING.sub(" ", expression))
    return {name for name, follows in SELECTOR.findall(bare) if follows != "(" and name not in WORDS}


def labels_of(expression: str) -> set[str]:
    """Names of the labels that an expression selects or groups by."""
    grouped = {label.strip() for group in GROUPING.findall(expression) for label in group.split(",")}
    return (grouped | set(re.findall(r"[{,]\s*(\w+)\s*(?:=|!|~)", expression))) - {""}


@pytest.fixture(scope="module")
def published() -> dict[str, set[str]]:
    """Each name that a scrape can hold, with its labels."""
    metrics = Metrics()
    labels = {
        made._name: set(made._labelnames) for made in vars(metrics).values() if isinstance(made, MetricWrapperBase)
    }
    names: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        for suffix, more in SUFFIXES[family.type].items():
            names[family.name + suffix] = labels.get(family.name, set()) | more
    return names


def test_what_is_read_from_an_expression() -> None:
    expression = 'sum by (le, stage) (rate(a_total{job="x"}[5m])) / on () group_left () b:c > 0.5 unless absent(up)'
    assert metrics_of(expression) == {"a_total", "b:c", "up"}
    assert labels_of(expression) == {"le", "stage", "job"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_each_metric_and_label_is_published(rule: dict[str, Any], published: dict[str, set[str]]) -> None:
    metrics = metrics_of(rule["expr"])
    assert metrics
    for name in metrics - MADE_BY_PROMETHEUS:
        assert name in published, name
    labels = set().union(*(published[name] for name in metrics - MADE_BY_PROMETHEUS)) | TARGET_LABELS
    assert labels_of(rule["expr"]) <= labels


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_each_alert_says_what_happened_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "action"}
    quoted = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    kept = {label.strip() for group in GROUPING.findall(rule["expr"]) for label in group.split(",")}
    assert quoted <= kept | TARGET_LABELS


def test_the_names_are_given_once() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


def test_every_counter_of_trouble_has_an_alert() -> None:
    asked = {name for rule in RULES for name in metrics_of(rule["expr"])}
    trouble = {"whyrec_dead_letters_total", "whyrec_model_mismatch_total", "whyrec_lag"}
    archiving = {"stuck", "gap_offsets_total", "implausible_dates_total"}
    assert trouble | {f"whyrec_archive_{name}" for name in archiving} <= asked


def test_prometheus_loads_the_alerts_and_scrapes_where_the_image_listens() -> None:
    configured = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert configured["rule_files"] == ["alerts.yml"]
    (scraped,) = configured["scrape_configs"]
    assert scraped["job_name"] == "whyrec"
    assert scraped["dns_sd_configs"][0]["names"] == ["worker"]
    assert scraped["dns_sd_configs"][0]["port"] == int(stages()[-1].environment["WHYREC_METRICS_PORT"])
