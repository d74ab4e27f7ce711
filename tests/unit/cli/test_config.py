"""`headrace config`: what is in force, where it came from, and no secret shown."""

import json
from pathlib import Path

import pytest

from headrace.cli.config import masked
from tests.unit.cli.test_main import Ran, assert_one_line, run


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("redis://user:hunter2@host:6379/0", "redis://user:***@host:6379/0"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("redis://host/0?password=hunter2&db=1", "redis://host/0?password=***&db=1"),
        ("https://host/?api_key=hunter2", "https://host/?api_key=***"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        (8080, 8080),
        (None, None),
    ],
)
def test_secrets_of_urls_are_not_shown(value: object, shown: object) -> None:
    assert masked(value) == shown


def test_each_value_says_where_it_came_from(tmp_path: Path) -> None:
    config = tmp_path / "headrace.yaml"
    config.write_text("gateway: {port: 9000, host: 0.0.0.0}\n")
    variables = {"HEADRACE_GATEWAY__PORT": "9001", "HEADRACE_REDIS__URL": "redis://:hunter2@r"}
    ran = run("config", "show", "--json", "--config", str(config), stdin=b"", **variables)
    tree = json.loads(ran.out)
    assert tree["gateway"]["port"] == {"value": 9001, "source": "environment"}
    assert tree["gateway"]["host"] == {"value": "0.0.0.0", "source": str(config)}
    assert tree["redis"]["url"] == {"value": "redis://:***@r", "source": "environment"}
    assert tree["queue"]["lease_ms"] == {"value": 10_000, "source": "default"}


def test_for_people_it_is_a_table() -> None:
    heading, *rows = run("config", "show", HEADRACE_GATEWAY__PORT="9001").out.splitlines()
    assert heading.split() == ["SETTING", "VALUE", "FROM"]
    assert ["gateway.port", "9001", "environment"] in [row.split() for row in rows]


def test_valid_settings() -> None:
    assert run("config", "check") == Ran(0, "The settings are valid.\n", "")
    assert json.loads(run("config", "check", "--json").out) == {"valid": True}


def test_the_first_thing_that_is_wrong(tmp_path: Path) -> None:
    config = tmp_path / "headrace.yaml"
    config.write_text("gateway: {port: many}\n")
    assert_one_line(run("config", "check", "--config", str(config)), "gateway.port", str(config))
    ran = run("config", "check", "--json", HEADRACE_GATEWAY__PROT="1")
    assert (ran.code, json.loads(ran.out)["valid"]) == (1, False)
    assert "gateway.prot" in json.loads(ran.out)["error"]
