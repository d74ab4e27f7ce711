"""Prometheus' and Grafana's files: they parse, and every metric, label and error code that they name exists."""

import json
import re
from collections.abc import Iterator

import pytest
import yaml

from headrace.contract import errors
from headrace.contract.errors import HeadraceError
from headrace.telemetry.metrics import METRICS, MetricRow
from tests.deployment.compose import FILE
from tests.deployment.dockerfile import ROOT

PROMETHEUS, GRAFANA = ROOT / "infra/prometheus", ROOT / "infra/grafana"
SCRAPED = {"instance", "job"}
"""Labels that Prometheus itself puts to whatever it scrapes."""


def alerts() -> list[dict[str, str]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[tuple[str, str, str]]:
    """Title, expression and legend of each graph."""
    found = json.loads((GRAFANA / "dashboards/headrace.json").read_text())["panels"]
    return [(panel["title"], target["expr"], target["legendFormat"]) for panel in found for target in panel["targets"]]


def row_of(name: str) -> MetricRow:
    """The row of the table that a series belongs to. Raises KeyError for one that nobody sets."""
    family = re.sub(r"_(bucket|sum|count)$", "", name)
    if family != name and METRICS[family].kind != "histogram":
        raise KeyError(name)
    return METRICS[family]


def labels_of(row: MetricRow) -> set[str]:
    return {*row.labels, *SCRAPED, *({"worker"} if row.of == "worker" else ()), "le"}


def named(expression: str) -> Iterator[MetricRow]:
    for name in re.findall(r"\bheadrace_\w+", expression):
        yield row_of(name)


def expressions() -> list[tuple[str, str]]:
    return [(rule["alert"], rule["expr"]) for rule in alerts()] + [(title, expr) for title, expr, _ in panels()]


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_every_metric_and_label_exists(where: str, expression: str) -> None:
    rows = list(named(expression))
    assert rows or expression.startswith("up{"), where
    grouped = re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", expression)
    matched = re.findall(r"(\w+)\s*[=!]~?\s*\"", expression)
    used = {label.strip() for labels in grouped for label in labels.split(",")} | set(matched)
    assert used <= SCRAPED.union(*map(labels_of, rows))
    for row in rows:
        # A rate of a gauge, or a counter as it stands, says nothing.
        counted = re.search(rf"(rate|increase)\({row.name}(_bucket|_sum|_count)?[\[{{]", expression)
        assert bool(counted) == (row.kind != "gauge"), (where, row.name)


def test_a_name_that_nobody_sets_is_found_out() -> None:
    for name in ("headrace_engine_dreams_total", "headrace_queue_jobs_bucket"):
        with pytest.raises(KeyError):
            row_of(name)


def test_legends_show_labels_that_the_graph_keeps() -> None:
    for title, expression, legend in panels():
        kept = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(",")}
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= kept, title


def test_alerts_say_what_is_wrong_and_what_next() -> None:
    known = {
        error.code for error in vars(errors).values() if isinstance(error, type) and issubclass(error, HeadraceError)
    }
    assert len({rule["alert"] for rule in alerts()}) == len(alerts())
    for rule in alerts():
        assert rule["labels"]["severity"] in {"page", "ticket"}  # type: ignore[index]
        assert set(rule["annotations"]) == {"summary", "next"}
        for codes in re.findall(r'code=~?"([^"]+)"', rule["expr"]):
            assert set(codes.split("|")) <= known


def test_the_files_find_each_other() -> None:
    services = yaml.safe_load(FILE.read_text())["services"]
    prometheus = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert "./infra/prometheus:/etc/prometheus:ro" in services["prometheus"]["volumes"]
    assert prometheus["rule_files"] == ["/etc/prometheus/alerts.yml"]
    targets = [t for scrape in prometheus["scrape_configs"] for s in scrape["static_configs"] for t in s["targets"]]
    assert "gateway:8080" in targets

    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/headrace.yml").read_text())["providers"]
    folder = provider["options"]["path"]
    assert f"./infra/grafana/dashboards:{folder}:ro" in services["grafana"]["volumes"]
    assert services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{folder}/headrace.json"
    dashboard = json.loads((GRAFANA / "dashboards/headrace.json").read_text())
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
    placed = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
    assert len(placed) == len(dashboard["panels"])
