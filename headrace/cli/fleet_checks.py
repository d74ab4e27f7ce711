"""Checks of what runs: Redis, ledger, gateway, workers. Knows what their answers mean; starts and changes nothing."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from headrace.cli.findings import Finding, State, failed
from headrace.client.core import DEFAULT_URL
from headrace.contract.errors import HeadraceError, SetupError
from headrace.ledger.base import open_ledger, without_password
from headrace.settings import LedgerSettings, Settings
from headrace.store.connection import check_info, connect, store_errors
from headrace.supervisor.redis_server import embedded_url

_WAIT_S = 2.0
_SKEW_MS = 1_000
_NODE, _NODE_BYTES = "stream-node-max-bytes", 1_024
_OPTIONS = ("appendfsync", _NODE)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a Redis said of itself. `skew_ms` is how far this machine's clock is ahead of its own."""

    info: Mapping[str, Any]
    skew_ms: int


def redis(url: str, data_dir: Path) -> list[Finding]:
    """The given Redis, or that of the `headrace up` that runs in the data folder."""
    where = url or embedded_url(data_dir)
    if not where:
        return [Finding("redis", State.OK, "None is given and none runs here: `headrace up` starts one.")]
    try:
        asked = _ask(where)
    except HeadraceError as error:
        if url:
            return [failed("redis", error)]
        return [Finding("redis", State.OK, "No `headrace up` runs in the data folder now; it starts one.")]
    return [store(asked.info), *journals(asked.info), clock(asked.skew_ms)]


def store(info: Mapping[str, Any]) -> Finding:
    """Version, eviction and what an acknowledged write is worth, from INFO and CONFIG."""
    try:
        check_info(info)
    except SetupError as error:
        return failed("redis", error)
    version, fsync = f"Redis {info['redis_version']}, noeviction", info.get("appendfsync", "unknown")
    if not info.get("aof_enabled"):
        step = "Set appendonly yes, and appendfsync always where nothing accepted may be lost."
        return Finding("redis", State.WARN, f"{version}, but no append-only file: a restart loses every job.", step)
    meaning = {"always": "what is accepted is on disk", "everysec": "a killed Redis may lose the last second"}
    return Finding("redis", State.OK, f"{version}, appendfsync {fsync} ({meaning.get(fsync, 'ask who runs it')}).")


def journals(info: Mapping[str, Any]) -> list[Finding]:
    """Nothing, unless its streams are said to have larger nodes than the embedded server's."""
    node_bytes = int(info.get(_NODE, 0))
    if node_bytes <= _NODE_BYTES:
        return []
    message = f"Redis gives every journal {node_bytes:,} bytes at once; those of short answers take up to three times"
    message += f" the memory that they take with {_NODE_BYTES:,}."
    step = f"Run `redis-cli config set {_NODE} {_NODE_BYTES}`, and put it into its configuration."
    return [Finding("journals", State.WARN, message, step)]


def clock(skew_ms: int) -> Finding:
    """All times of a job are those of Redis; a clock that differs makes ages and deadlines look wrong."""
    if abs(skew_ms) > _SKEW_MS:
        ahead = "ahead of" if skew_ms > 0 else "behind"
        message = f"This machine is {abs(skew_ms) / 1000:.1f} s {ahead} Redis; times shown here are off by that."
        return Finding("clock", State.WARN, message, "Run an NTP client on both.")
    return Finding("clock", State.OK, f"{abs(skew_ms)} ms from that of Redis.")


def ledger(given: LedgerSettings) -> list[Finding]:
    """Whether the queue is there and fit for jobs; nothing where none is configured. Makes none."""
    asked = given.model_copy(update={"create": False, "timeout_s": min(given.timeout_s, _WAIT_S)})
    try:
        opened = open_ledger(Settings(ledger=asked))
        if opened is None:
            return []
        try:
            warnings = opened.check()
        finally:
            opened.close()
    except HeadraceError as error:
        if given.create and error.param == "ledger.create":
            return [Finding("ledger", State.OK, f"{error.message} A feeder makes it.")]
        return [failed("ledger", error)]
    if warnings:
        return [Finding("ledger", State.WARN, each, "See docs/08-ledgers.md.") for each in warnings]
    return [Finding("ledger", State.OK, f"{without_password(given.url)} answers, and is fit for jobs.")]


def gateway(url: str, headers: Mapping[str, str]) -> list[Finding]:
    """Whether it answers, can take jobs, and has somebody to do them."""
    with httpx2.Client(base_url=url, headers=headers, timeout=_WAIT_S) as http:
        try:
            live = _json(http.get("/health/live"))
        except httpx2.TransportError as error:
            # Nobody said that there should be one at the default address.
            state = State.WARN if url == DEFAULT_URL else State.FAIL
            step = "Start one with `headrace up`, or give its address (--url or HEADRACE_URL)."
            return [Finding("gateway", state, f"None answers at {url}: {str(error) or type(error).__name__}.", step)]
        if live.get("status") != "live":
            message = f"What answers at {url} is no Headrace gateway."
            return [Finding("gateway", State.FAIL, message, "Give its address (--url or HEADRACE_URL).")]
        found = [Finding("gateway", State.OK, f"Answers at {url}.")]
        try:
            ready, beats, cards = (_json(http.get(path)) for path in ("/health/ready", "/health/fleet", "/v1/models"))
        except httpx2.TransportError as error:
            step = "Look at its log."
            return [*found, Finding("ready", State.FAIL, f"It stopped answering: {type(error).__name__}.", step)]
    return [*found, readiness(ready), fleet(beats.get("workers", []), cards.get("data", []))]


def readiness(answer: Mapping[str, Any]) -> Finding:
    """From `/health/ready`."""
    if answer.get("status") == "ready":
        return Finding("ready", State.OK, "It can take jobs.")
    message = str((answer.get("error") or {}).get("message", "It does not say why."))
    return Finding("ready", State.FAIL, f"It cannot take jobs: {message}", "Look at Redis and at the gateway's log.")


def fleet(workers: Sequence[Mapping[str, Any]], cards: Sequence[Mapping[str, Any]]) -> Finding:
    """From `/health/fleet` and `/v1/models`. Jobs for a model with a card and without a worker wait."""
    models = [str(card["id"]) for card in cards]
    served = {str(worker["lane"]).rpartition("@")[0] for worker in workers if worker["state"] == "ready"}
    ready = sum(worker["state"] == "ready" for worker in workers)
    counted = f"{len(workers)} worker{'s' * (len(workers) != 1)}, {ready} ready"
    if not models:
        return Finding("fleet", State.WARN, f"{counted}; no model was ever announced.", "Start a worker.")
    if waiting := [model for model in models if model not in served]:
        message = f"{counted}; nobody serves {', '.join(waiting)}: its jobs wait."
        return Finding("fleet", State.WARN, message, "Start a worker, or wait for the one that starts.")
    return Finding("fleet", State.OK, f"{counted}; served: {', '.join(models)}.")


def _ask(url: str) -> Asked:
    """Raises StoreUnavailable, and SetupError for what is no URL."""
    with connect(url, connect_timeout_s=_WAIT_S, socket_timeout_s=_WAIT_S) as client, store_errors():
        before = time.time()
        seconds, micros = client.time()
        middle = (before + time.time()) / 2
        info = {**client.info(), **_config(client)}
    return Asked(info, round((middle - seconds - micros / 1e6) * 1000))


def _config(client: Any) -> dict[str, Any]:
    """CONFIG, where we may ask: hosted ones refuse."""
    try:
        return {name: value for option in _OPTIONS for name, value in client.config_get(option).items()}
    except Exception:  # noqa: BLE001 - a refusal of any kind means that it is not told
        return {}


def _json(response: httpx2.Response) -> dict[str, Any]:
    try:
        value = response.json()
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}
