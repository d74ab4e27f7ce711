"""The wheel alone, as a stranger installs it: a client and a command line that work, and no server."""

import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

import headrace
from tests.deployment.bare import Bare
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker
from tests.integration.gateway.serving import serving, settings_for
from tests.redis_server import RedisServer

PROGRAM = """
import sys
from headrace import AsyncClient, Client, Patience

with Client(sys.argv[1], patience=Patience(silence_s=10)) as client:
    assert client.models() == [sys.argv[2]], client.models()
    job = client.submit(model=sys.argv[2], messages=[{"role": "user", "content": "Hello"}], max_tokens=8)
    print("".join(job.text_stream()), job.wait().finish_reason)
"""


@pytest.fixture
def url(deployment_redis: RedisServer, store: redis.Redis) -> Iterator[str]:
    ScriptedWorker(store).announce()
    with serving(settings_for(deployment_redis.url)) as gateway:
        yield gateway.url


@pytest.fixture
def answering(store: redis.Redis) -> Iterator[None]:
    """A worker that answers one job."""
    thread = threading.Thread(target=ScriptedWorker(store).run, args=("Good ", "day"))
    thread.start()
    yield
    thread.join(20)
    assert not thread.is_alive()


def test_it_holds_headrace_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"headrace", f"headrace-{headrace.__version__}.dist-info"}
    assert "headrace/py.typed" in names
    assert any(name.startswith("headrace/queue/lua/") for name in names)


def test_it_brings_no_server_and_no_torch(stranger: Bare) -> None:
    servers = ("gateway", "workers", "engine", "kernels", "torch", "numpy", "fastapi", "uvicorn", "celery", "boto3")
    assert stranger.lacks(*servers, "headrace", "httpx2", "redis") == list(servers)
    assert "No module named 'gateway'" in stranger.run("python", "-c", "import gateway").stderr


def test_its_command_says_its_version(stranger: Bare) -> None:
    said = stranger.run("headrace", "--version")
    assert (said.returncode, said.stdout, said.stderr) == (0, f"headrace {headrace.__version__}\n", "")


@pytest.mark.usefixtures("answering")
def test_its_client_talks_to_a_gateway(stranger: Bare, url: str) -> None:
    said = stranger.run("python", "-W", "error", "-c", PROGRAM, url, MODEL)
    assert (said.returncode, said.stdout, said.stderr) == (0, "Good day stop\n", "")


@pytest.mark.usefixtures("answering")
def test_its_command_submits_and_waits(stranger: Bare, url: str) -> None:
    said = stranger.run("headrace", "submit", "--wait", "--url", url, "--max-tokens", "8", "Hello")
    assert (said.returncode, said.stdout) == (0, "Good day\n")
    assert said.stderr.startswith("job_")


@pytest.mark.parametrize("verb", ["up", "gateway", "worker"])
def test_a_verb_that_needs_a_server_says_in_one_line_how_to_get_it(stranger: Bare, verb: str) -> None:
    said = stranger.run("headrace", verb)
    assert (said.returncode, said.stdout) == (1, "")
    (line,) = said.stderr.splitlines()
    assert "not in the wheel" in line
    assert "git clone" in line
    assert "make up" in line
    assert "docker compose up" in line
