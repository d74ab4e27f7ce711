"""One frozen tree of settings, read once in a `__main__` and handed down. The only reader of the environment.

Order: flag > environment (`HEADRACE_<SECTION>__<FIELD>`) > `.env` > YAML (`--config`) > the defaults here.
Unknown keys are errors, since a misspelt setting that is silently ignored costs an afternoon.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, YamlConfigSettingsSource

from headrace.contract.errors import SetupError
from headrace.queue.base import Timing

PREFIX = "HEADRACE_"
CLIENT_NAMES = frozenset({"HEADRACE_URL", "HEADRACE_API_KEY"})
"""The client's two short names: never settings of the fleet, never unknown keys."""


def _xdg(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback) / "headrace"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PathSettings(Section):
    data_dir: Path = Field(default_factory=lambda: _xdg("XDG_DATA_HOME", ".local/share"))
    models_dir: Path = Field(default_factory=lambda: _xdg("XDG_CACHE_HOME", ".cache") / "models")


class RedisSettings(Section):
    """An empty `url` means the embedded server of `headrace up`."""

    url: str = ""
    connect_timeout_s: float = Field(default=5.0, gt=0)
    socket_timeout_s: float = Field(default=5.0, gt=0)


class QueueSettings(Section):
    """Times of the delivery protocol. Shorter leases find a dead host sooner and forgive less."""

    lease_ms: int = Field(default=10_000, ge=200)
    renew_ms: int = Field(default=3_000, ge=50)
    beat_ms: int = Field(default=1_000, ge=50)
    reap_ms: int = Field(default=1_000, ge=50)
    journal_ttl_s: int = Field(default=15 * 60, ge=1)
    result_ttl_s: int = Field(default=24 * 3600, ge=1)

    def timing(self) -> Timing:
        return Timing(self.lease_ms, self.journal_ttl_s * 1000, self.result_ttl_s * 1000)


class GatewaySettings(Section):
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    first_event_timeout_s: float = Field(default=15.0, gt=0)
    ping_s: float = Field(default=15.0, gt=0)
    max_body_bytes: int = Field(default=10_000_000, ge=1_000)


class WorkerSettings(Section):
    """`model` is a name from `headrace models list` or `file:<path>`; `tag` is given by a supervisor."""

    model: str = "smollm2-135m-instruct"
    release: str = "stable"
    tag: str = ""
    max_jobs: int = Field(default=32, ge=1)
    progress_timeout_s: float = Field(default=30.0, gt=0)
    start_timeout_s: float = Field(default=120.0, gt=0)
    drain_s: float = Field(default=10.0, gt=0)


class EngineSettings(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    numerics: Literal["exact", "reference"] = "exact"
    kv_budget_mb: int = Field(default=512, ge=1)
    max_num_seqs: int = Field(default=64, ge=1)
    max_batched_tokens: int = Field(default=256, ge=1)
    max_context: int | None = Field(default=None, ge=16)
    threads: int | None = Field(default=None, ge=1)


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(BaseSettings):
    """The whole tree. `load()` is the way to make one."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_nested_max_split=1,
        env_file=".env",
    )

    paths: PathSettings = PathSettings()
    redis: RedisSettings = RedisSettings()
    queue: QueueSettings = QueueSettings()
    gateway: GatewaySettings = GatewaySettings()
    worker: WorkerSettings = WorkerSettings()
    engine: EngineSettings = EngineSettings()
    log: LogSettings = LogSettings()


def load(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Read every source once.

    `flags` is a nested mapping of what the command line gave (`{"gateway": {"port": 9000}}`).
    Raises SetupError naming the key, the value and what would be right.
    """
    raise NotImplementedError
