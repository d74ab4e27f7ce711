"""One frozen tree of settings, read once in a `__main__` and handed down. The only reader of the environment.

Order: flag > environment (`HEADRACE_<SECTION>__<FIELD>`) > `.env` > YAML (`--config`) > the defaults here.
Unknown keys are errors, since a misspelt setting that is silently ignored costs an afternoon.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from headrace.contract.errors import SetupError
from headrace.queue.base import Timing

PREFIX = "HEADRACE_"
CLIENT_NAMES = frozenset({"HEADRACE_URL", "HEADRACE_API_KEY"})
"""The client's two short names: never settings of the fleet, never unknown keys."""


def _xdg(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback) / "headrace"


class Section(BaseModel):
    """One section: frozen, and deaf to names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PathSettings(Section):
    data_dir: Path = Field(default_factory=lambda: _xdg("XDG_DATA_HOME", ".local/share"))
    models_dir: Path = Field(default_factory=lambda: _xdg("XDG_CACHE_HOME", ".cache") / "models")


class RedisSettings(Section):
    """An empty `url` means the embedded server of `headrace up`.

    A job is accepted once `wait_replicas` replicas have it too, and refused when they have not within `wait_ms`."""

    url: str = ""
    connect_timeout_s: float = Field(default=5.0, gt=0)
    socket_timeout_s: float = Field(default=5.0, gt=0)
    wait_replicas: int = Field(default=0, ge=0)
    wait_ms: int = Field(default=1_000, ge=1)

    @model_validator(mode="after")
    def _waits_within_a_timeout(self) -> Self:
        if self.wait_replicas and self.wait_ms >= self.socket_timeout_s * 1000:
            raise ValueError(f"wait_ms must be less than socket_timeout_s ({self.socket_timeout_s:g} s)")
        return self


class QueueSettings(Section):
    """Times of the delivery protocol. Shorter leases find a dead host sooner and forgive less."""

    lease_ms: int = Field(default=10_000, ge=200)
    renew_ms: int = Field(default=3_000, ge=50)
    beat_ms: int = Field(default=1_000, ge=50)
    reap_ms: int = Field(default=1_000, ge=50)
    journal_ttl_s: int = Field(default=15 * 60, ge=1)
    result_ttl_s: int = Field(default=24 * 3600, ge=1)

    @model_validator(mode="after")
    def _ticks_within_a_lease(self) -> Self:
        """A reaper that ticks too rarely takes its own pauses for outages, and then leaves every lease alone."""
        for name in ("reap_ms", "renew_ms"):
            if getattr(self, name) * 2 >= self.lease_ms:
                raise ValueError(f"{name} must be less than half of lease_ms ({self.lease_ms})")
        return self

    def timing(self) -> Timing:
        return Timing(self.lease_ms, self.journal_ttl_s * 1000, self.result_ttl_s * 1000)


class GatewaySettings(Section):
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    first_event_timeout_s: float = Field(default=15.0, gt=0)
    ping_s: float = Field(default=15.0, gt=0)
    max_body_bytes: int = Field(default=10_000_000, ge=1_000)


class WorkerSettings(Section):
    """`model` is a name from `headrace models list`, `file:<path>`, `hf:<org>/<repo>` or `s3://<bucket>/<key>`.

    `nice` is how far the worker and its engine give way to other processes of their machine, such as a gateway and
    Redis on the same cores. `tag` is given by a supervisor; `events` shows jobs on Celery's console.
    `notices` of which cloud end the worker before its machine goes; `notices_url` is another address than that cloud's
    metadata server."""

    model: str = "smollm2-135m-instruct"
    release: str = "stable"
    tag: str = ""
    max_jobs: int = Field(default=32, ge=1)
    progress_timeout_s: float = Field(default=30.0, gt=0)
    start_timeout_s: float = Field(default=120.0, gt=0)
    drain_s: float = Field(default=10.0, gt=0)
    events: bool = True
    nice: int = Field(default=0, ge=0, le=19)
    notices: Literal["none", "auto", "ec2", "gce"] = "none"
    notices_url: str = ""


class EngineSettings(Section):
    """`cache_dir` keeps packed weights and compiled code between starts."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    numerics: Literal["exact", "reference"] = "exact"
    backend: Literal["auto", "torch", "cpu", "cuda"] = "auto"
    kv_budget_mb: int | None = Field(default=None, ge=1)
    prefix_cache: bool = True
    max_num_seqs: int = Field(default=64, ge=1)
    max_batched_tokens: int = Field(default=512, ge=1)
    step_seconds: float = Field(default=0.1, gt=0)
    max_context: int | None = Field(default=None, ge=16)
    threads: int | None = Field(default=None, ge=1)
    cache_dir: Path = Field(default_factory=lambda: _xdg("XDG_CACHE_HOME", ".cache") / "engine")


class BlobSettings(Section):
    """Where results and prompts too large for Redis go. An empty `url` means the folder `blobs` in `paths.data_dir`.

    `endpoint_url` is for another S3 than Amazon's; `timeout_s` is the longest silence of S3 that is borne."""

    url: str = ""
    endpoint_url: str = ""
    threshold_bytes: int = Field(default=200_000, ge=1_000)
    timeout_s: float = Field(default=10.0, gt=0)


class LedgerSettings(Section):
    """An outer durable queue, `sqs://<queue>` or `amqp://…/<vhost>?queue=<queue>`; none when `url` is empty.

    `window` is the most messages that one feeder holds, `visibility_s` how long SQS leaves each to it, and after
    `hand_over_s` a message goes back to the broker for a fresh start (by default before the broker's own limit). A job
    that has waited for its ledger for `accepted_s` is published again. `retention_s` keeps what recognises a finished
    job; it is longer than any message lives. With `create` a queue that is not there is made.
    """

    url: str = ""
    endpoint_url: str = ""
    create: bool = False
    window: int = Field(default=1_000, ge=1, le=20_000)
    visibility_s: int = Field(default=120, ge=1, le=12 * 3600)
    hand_over_s: float | None = Field(default=None, gt=0)
    timeout_s: float = Field(default=5.0, gt=0)
    look_s: float = Field(default=0.5, gt=0)
    accepted_s: float = Field(default=15.0, gt=0)
    retention_s: int = Field(default=15 * 24 * 3600, ge=14 * 24 * 3600)


class ScaleSettings(Section):
    """How `headrace up --workers 0..4` decides. `idle_s` without work ends a worker, `target_s` is how long a backlog
    may take."""

    idle_s: float = Field(default=60.0, gt=0)
    target_s: float = Field(default=10.0, gt=0)
    look_s: float = Field(default=1.0, gt=0)


class TelemetrySettings(Section):
    """Traces go to `otlp_endpoint` (HTTP, like http://127.0.0.1:4318); empty keeps none."""

    otlp_endpoint: str = ""


class MaintenanceSettings(Section):
    """How often the task role looks for index entries and for blobs whose record is gone."""

    index_s: float = Field(default=60.0, gt=0)
    blobs_s: float = Field(default=600.0, gt=0)


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(Section):
    """The whole tree. `load()` is the way to make one."""

    paths: PathSettings = Field(default_factory=PathSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    queue: QueueSettings = Field(default_factory=QueueSettings)
    gateway: GatewaySettings = Field(default_factory=GatewaySettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    blobs: BlobSettings = Field(default_factory=BlobSettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    scale: ScaleSettings = Field(default_factory=ScaleSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    maintenance: MaintenanceSettings = Field(default_factory=MaintenanceSettings)
    log: LogSettings = Field(default_factory=LogSettings)


def load(
    flags: Mapping[str, Any] | None = None,
    config: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    dotenv: Path = Path(".env"),
) -> Settings:
    """Read every source once.

    `flags` is a nested mapping of what the command line gave (`{"gateway": {"port": 9000}}`); a flag of None was
    not given. Raises SetupError naming the key, what is wrong with it and where it came from.
    """
    return load_with_origins(flags, config, environ=environ, dotenv=dotenv)[0]


def load_with_origins(
    flags: Mapping[str, Any] | None = None,
    config: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    dotenv: Path = Path(".env"),
) -> tuple[Settings, Mapping[str, str]]:
    """As `load`, and where each value that is no default came from, by its name (`gateway.port`)."""
    sources = [
        ("flag", _without_none(flags or {})),
        ("environment", _from_variables(os.environ if environ is None else environ)),
        (str(dotenv), _from_variables({k: v or "" for k, v in dotenv_values(dotenv).items()})),
        (str(config), _from_yaml(config)),
    ]
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for where, source in reversed(sources):
        tree = _merged(tree, source)
        origins |= {f"{section}.{name}": where for section, fields in source.items() for name in fields}
    try:
        return Settings.model_validate(tree), origins
    except ValidationError as error:
        raise _explained(error, sources) from None


def as_variables(settings: Settings) -> dict[str, str]:
    """The tree as environment variables, for a child process that is to see exactly the same."""
    return {
        f"{PREFIX}{section}__{name}".upper(): str(value)
        for section, fields in settings.model_dump(mode="json").items()
        for name, value in fields.items()
        if value is not None
    }


def _from_variables(variables: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in variables.items():
        if not name.startswith(PREFIX) or name in CLIENT_NAMES:
            continue
        section, _, field = name.removeprefix(PREFIX).lower().partition("__")
        if not field:
            raise SetupError(f"Unknown setting {name}.", next_step=f"Settings are named {PREFIX}<SECTION>__<FIELD>.")
        tree.setdefault(section, {})[field] = value
    return tree


def _from_yaml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        tree = yaml.safe_load(path.read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SetupError(f"Cannot read the settings file {path}: {error}") from error
    if not isinstance(tree, dict) or not all(isinstance(fields, dict) for fields in tree.values()):
        raise SetupError(f"The settings file {path} must hold sections of fields.")
    return tree


def _without_none(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {section: {k: v for k, v in fields.items() if v is not None} for section, fields in tree.items()}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    return {section: {**below.get(section, {}), **above.get(section, {})} for section in {**below, **above}}


def _explained(error: ValidationError, sources: list[tuple[str, dict[str, Any]]]) -> SetupError:
    first = error.errors()[0]
    section, field = ([str(part) for part in first["loc"]] + [""])[:2]
    name = f"{section}.{field}" if field else section
    origin = next((where for where, tree in sources if section in tree and (not field or field in tree[section])), "?")
    if first["type"] == "extra_forbidden":
        known = Settings.model_fields if not field else type(getattr(Settings(), section)).model_fields
        return SetupError(f"Unknown setting {name} ({origin}).", next_step=f"Known here: {', '.join(sorted(known))}.")
    return SetupError(f"Setting {name} ({origin}): {first['msg']}.", param=name)
