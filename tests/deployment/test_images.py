"""The Dockerfiles: well formed, unprivileged, and each image enough for what it is to run."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx2
import pytest
import redis

from headrace.client import Client
from tests.deployment.bare import Bare, install
from tests.deployment.dockerfile import ROOT, Stage, copy, sent, stages
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker, wait_for
from tests.integration.gateway.test_process import free_port
from tests.redis_server import RedisServer

FILES = sorted((ROOT / "infra" / "docker").glob("*.Dockerfile"))
GATEWAY, WORKER = ROOT / "infra/docker/gateway.Dockerfile", ROOT / "infra/docker/worker.Dockerfile"
FINAL = {GATEWAY: ("1",), WORKER: ("cpu", "cuda")}
ENGINES = ("workers", "engine", "kernels", "torch", "triton", "numpy", "celery")


def final_stages() -> list[Stage]:
    return [stages(path)[name] for path, names in FINAL.items() for name in names]


def test_there_are_the_two_that_compose_builds() -> None:
    assert FILES == [GATEWAY, WORKER]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_hadolint_finds_nothing(path: Path) -> None:
    command = [str(Path(sys.executable).with_name("hadolint")), "--format", "json", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert json.loads(ended.stdout) == []
    assert ended.returncode == 0
    for ignored in re.findall(r"(.*)\n# hadolint ignore", path.read_text()):
        assert ignored.startswith("# "), "an ignored rule has its reason in the line above"


@pytest.mark.parametrize("stage", final_stages(), ids=lambda stage: stage.name)
def test_an_image_runs_as_somebody_unprivileged_and_hears_signals(stage: Stage) -> None:
    assert re.fullmatch(r"python:3\.1[12]\.\d+-slim-\w+", stage.base)
    assert stage.last("USER") == "10001:10001"
    assert stage.last("STOPSIGNAL") == "SIGTERM"
    assert stage.command("ENTRYPOINT")[:2] == ["python", "-m"]
    assert stage.command("HEALTHCHECK")[0] == "python"
    assert stage.variables()["PYTHONUNBUFFERED"] == "1"
    pips = [text for found in map(stages, FILES) for s in found.values() for text in s.all("RUN") if "pip ins" in text]
    assert len(pips) == 3
    assert all("--no-cache-dir" in text and "-c constraints.txt" in text for text in pips)


def test_the_worker_image_has_the_engine_and_not_the_gateway() -> None:
    for name in ("cpu", "cuda"):
        assert set(stages(WORKER)[name].copied()) == {"headrace", "kernels", "engine", "workers"}


def test_nothing_else_is_sent_to_the_builder(tmp_path: Path) -> None:
    for name in (".env", "tests/conftest.py", "headrace/__pycache__/x.pyc", "gateway/routes/__pycache__/x.pyc"):
        assert not sent(PurePosixPath(name)), name
    copy(["headrace", "tests", ".env.example", "docs", "pyproject.toml"], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"headrace", "pyproject.toml"}
    assert (tmp_path / "headrace/queue/lua/claim.lua").is_file()


@dataclass(frozen=True, slots=True)
class Image:
    """What the gateway's image holds: `app` is its working directory, `stage` what the Dockerfile says of it."""

    bare: Bare
    app: Path
    stage: Stage

    def command(self, instruction: str, port: int) -> list[str]:
        python, *rest = self.stage.command(instruction)
        assert python == "python"
        return [str(self.bare.python), *(word.replace("8080", str(port)) for word in rest)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The steps of the Dockerfile: files copied before the install, the extras installed, the code copied."""
    found = stages(GATEWAY)
    build, final = found["build"], found["1"]
    folder = tmp_path_factory.mktemp("image")
    app = folder / "app"
    before = copy(build.copied(), app)
    (extras,) = re.findall(r'-e "\.\[([a-z0-9,]+)\]"', build.last("RUN"))
    bare = install(folder / "venv", "--editable", str(app), extras=extras.split(","))
    for file in before:
        (app / file).unlink()  # the build stage is not the image
    copy(final.copied(), app)
    return Image(bare, app, final)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def booted(
    image: Image, deployment_redis: RedisServer, store: redis.Redis, port: int
) -> Iterator[subprocess.Popen[str]]:
    """The entrypoint in the image's own environment, but for the port and where it may write."""
    environment = {
        "PATH": "/usr/bin:/bin",
        **{name: value for name, value in image.stage.variables().items() if name != "PATH"},
        "HEADRACE_REDIS__URL": deployment_redis.url,
        "HEADRACE_GATEWAY__HOST": "127.0.0.1",
        "HEADRACE_GATEWAY__PORT": str(port),
        "HEADRACE_PATHS__DATA_DIR": str(image.bare.folder / "data"),
    }
    command = image.command("ENTRYPOINT", port)
    process = subprocess.Popen(command, cwd=image.app, env=environment, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def healthy(image: Image, port: int) -> bool:
    return subprocess.run(image.command("HEALTHCHECK", port), capture_output=True, timeout=20).returncode == 0


def test_the_gateway_boots_from_exactly_the_files_of_its_image(
    image: Image, booted: subprocess.Popen[str], store: redis.Redis, port: int
) -> None:
    assert sorted(path.name for path in image.app.iterdir()) == ["gateway", "headrace"]
    assert image.bare.lacks(*ENGINES) == list(ENGINES)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert booted.poll() is None, booted.communicate()[1]
        try:
            reply = httpx2.get(f"{url}/health/ready")
        except httpx2.TransportError:
            return False
        return reply.status_code == 200 and reply.json() == {"status": "ready"}

    wait_for(ready, 20)
    assert healthy(image, port)

    worker = ScriptedWorker(store)
    worker.announce()
    with Client(url) as client:
        job = client.submit(model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=8)
        worker.run("Good ", "day")
        assert job.wait().text == "Good day"

    began = time.monotonic()
    os.kill(booted.pid, signal.SIGTERM)
    booted.communicate(timeout=10)
    assert booted.returncode == 0
    assert time.monotonic() - began < 5
    assert not healthy(image, port)
