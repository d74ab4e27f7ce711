"""A Redis and one gateway, each in a process of its own, and what they cost. Knows processes, no load."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil
import redis

from engine.loaders import describe
from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, JobClass, Kind, lane_of
from headrace.contract.model_card import ModelCard
from headrace.queue.base import Timing
from headrace.queue.redis import RedisQueue
from headrace.store.beats import read_beats
from headrace.store.cards import write_card
from headrace.supervisor.redis_server import EmbeddedRedis, free_port
from workers.inference.fake_engine import CHAT_TEMPLATE, EOS, byte_tokenizer

MODEL: Final = "stand"
REVISION: Final = "stand-1"
_START_S: Final = 60.0
_STOP_S: Final = 10.0
_CONTEXT: Final = 65_536


@dataclass(frozen=True, slots=True)
class Stand:
    """What runs. `redis_url` is what everybody is given, `port` the gateway's on 127.0.0.1."""

    redis_url: str
    port: int
    gateway: psutil.Process
    redis: psutil.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process has used so far: seconds of CPU, its kernel's share included, and bytes of memory."""

    cpu_s: float
    memory: int

    @classmethod
    def of(cls, process: psutil.Process) -> "Cost":
        used = process.cpu_times()
        return cls(used.user + used.system, process.memory_info().rss)


@contextmanager
def standing(fsync: str, environ: Mapping[str, str] | None = None) -> Iterator[Stand]:
    """Both of them up, on free ports and in an empty folder; with the embedded Redis' options but for `fsync`."""
    with tempfile.TemporaryDirectory(prefix="hr-") as name:
        folder = Path(name)
        embedded = EmbeddedRedis(folder)
        port = free_port()
        environment = {**os.environ, "HEADRACE_REDIS__URL": embedded.url, **(environ or {})}
        command = [sys.executable, "-m", "gateway", "--port", str(port)]
        with (
            _process([*embedded.spec.command, "--appendfsync", fsync], folder / "redis.log", dict(os.environ)) as store,
            _process(command, folder / "gateway.log", environment) as gateway,
        ):
            _until(embedded.answers, store, folder / "redis.log")
            _until(lambda: _listens(port), gateway, folder / "gateway.log")
            yield Stand(embedded.url, port, psutil.Process(gateway.pid), psutil.Process(store.pid))


@contextmanager
def working(stand: Stand, model: str, environ: Mapping[str, str] | None = None) -> Iterator[psutil.Process]:
    """One worker on that stand, ready; stopped when the block is left. Its parent process."""
    environment = {**os.environ, "HEADRACE_REDIS__URL": stand.redis_url, **(environ or {})}
    command = [sys.executable, "-m", "workers", "--model", model]
    with tempfile.TemporaryDirectory(prefix="hr-") as name, redis.Redis.from_url(stand.redis_url) as client:
        log = Path(name) / "worker.log"
        with _process(command, log, environment) as worker:
            _until(lambda: any(beat.state == "ready" for beat in read_beats(client)), worker, log)
            yield psutil.Process(worker.pid)


def announce(client: redis.Redis) -> None:
    """A model whose tokens are bytes, so that text costs next to nothing."""
    _announce(client, byte_tokenizer(), CHAT_TEMPLATE, EOS + 1, (EOS,), None)


def announce_file(client: redis.Redis, model: Path) -> None:
    """The same name with the tokenizer and the template of a real one."""
    facts = describe(model)
    _announce(client, facts.tokenizer_json, facts.chat_template, facts.vocab_size, facts.eos_ids, facts.bos_id)


def _announce(
    client: redis.Redis,
    tokenizer: str,
    template: str | None,
    vocabulary: int,
    eos_ids: tuple[int, ...],
    bos_id: int | None,
) -> None:
    card = ModelCard(
        id=MODEL,
        revision=REVISION,
        context_length=_CONTEXT,
        max_kv_tokens=_CONTEXT,
        vocab_size=vocabulary,
        eos_ids=eos_ids,
        bos_id=bos_id,
        tokenizer_ref="",
        chat_template=template,
        digest=REVISION,
        created_at=time.time_ns() // 1_000_000,
    )
    write_card(client, card, tokenizer)


def submit(client: redis.Redis, count: int, *, max_tokens: int, tenant: str = "default") -> list[str]:
    """Jobs that wait, as a gateway would have accepted them; their ids."""
    queue, ids = RedisQueue(client, Timing()), []
    for number in range(count):
        request = FrozenRequest((104, 105), Sampling(seed=number), max_tokens)
        lane = lane_of(MODEL, "stable")
        job = Job(new_job_id(), MODEL, lane, REVISION, JobClass.STANDARD, Kind.COMPLETION, request, tenant=tenant)
        queue.accept(job)
        ids.append(job.id)
    return ids


def versions() -> dict[str, str]:
    """The versions that serve: they change what an event costs as much as our code does."""
    packages = ("fastapi", "uvicorn", "uvloop", "httptools", "redis", "hiredis", "orjson", "pydantic")
    return {name: version(name) for name in packages}


@contextmanager
def _process(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _until(ready: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + _START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > give_up_at:
            raise RuntimeError(f"it did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
