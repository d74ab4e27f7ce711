"""`headrace doctor`: what is in order here, and what to do about the rest. Knows the order of the checks."""

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from headrace import settings
from headrace.cli import fleet_checks, machine_checks, output
from headrace.cli.config import Config
from headrace.cli.findings import Finding, State, failed
from headrace.cli.options import ApiKey, Url
from headrace.client.endpoint import Endpoint
from headrace.contract.errors import SetupError


def doctor(
    config: Config = None,
    redis_url: Annotated[str | None, typer.Option(help="A Redis of your own instead of the embedded one.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> int:
    """Look at this machine and at the fleet, and say what to do next. Exit code 1 when something fails."""
    found = []
    for finding in examine(config, redis_url, url, api_key):
        found.append(finding)
        if not json:
            output.data(_line(finding))
    if json:
        output.json_data([finding.to_json() for finding in found])
    return int(any(finding.state is State.FAIL for finding in found))


def examine(config: Path | None, redis_url: str | None, url: str | None, api_key: str | None) -> Iterator[Finding]:
    """Every check in turn; with invalid settings those that need them look at the defaults."""
    yield machine_checks.python(sys.version_info[:2])
    try:
        loaded = settings.load({"redis": {"url": redis_url}}, config)
        yield Finding("settings", State.OK, "Valid.")
    except SetupError as error:
        loaded = settings.Settings()
        yield failed("settings", error)
    installed = machine_checks.installed_versions()
    yield machine_checks.extras(metadata.requires("headrace") or (), installed)
    yield machine_checks.installed_torch(installed)
    yield machine_checks.this_cpu()
    yield machine_checks.models_folder(loaded.paths.models_dir, loaded.worker.model)
    yield machine_checks.data_folder(loaded.paths.data_dir)
    yield machine_checks.redis_binary(loaded.redis.url)
    yield from fleet_checks.redis(loaded.redis.url, loaded.paths.data_dir)
    yield from fleet_checks.ledger(loaded.ledger)
    try:
        where = Endpoint.of(url, api_key)
        for each in where.urls:
            yield from fleet_checks.gateway(each, where.headers)
    except SetupError as error:
        yield failed("gateway", error)


def _line(finding: Finding) -> str:
    step = f" {finding.next_step}" if finding.next_step else ""
    return f"{finding.state.value:<4}  {finding.name:<12}  {finding.message}{step}"
