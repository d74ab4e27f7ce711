"""The pub/sub recipes as a reader would run them: begun in the middle, their connection killed, their text whole."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from headrace import Client
from headrace.client import JobHandle
from headrace.contract.events import to_json
from tests.e2e.fleet import Fleet
from tests.integration.examples.node import install, node_environment

PYTHON = Path(__file__).parents[3] / "examples" / "pubsub.py"


@pytest.fixture(scope="module", params=["python", "node"])
def recipes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The ways to run one language's recipe. Only Node's needs npm's registry, so without it only Node's tests fail."""
    if request.param == "node":
        script = install(tmp_path_factory.mktemp("pubsub-node"))
        return {"node": [str(shutil.which("node", path=node_environment()["PATH"])), str(script)]}
    python = [sys.executable, str(PYTHON)]
    return {"python": python, "python, from the journal": [*python, "--backfill", "journal"]}


@contextmanager
def following(fleet: Fleet, recipe: list[str], job: str, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "HEADRACE_URL": fleet.url, "HEADRACE_REDIS__URL": fleet.redis_url}
    command = [*recipe, job, *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def rest_of(process: subprocess.Popen[bytes]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest.fixture(scope="module")
def disturbed(fake_fleet: Fleet, recipes: dict[str, list[str]]) -> Iterator[tuple[JobHandle, dict[str, str]]]:
    """A job, and what each recipe printed that joined it halfway and lost its connection."""
    with Client(fake_fleet.url) as client, ExitStack() as stack:
        job = client.submit(model="fake", prompt="tell", max_tokens=200, seed=7)
        next(job.text_stream())
        engine = fake_fleet.engine_child(fake_fleet.holder())
        engine.suspend()  # the job stands still until every recipe has shown what came before
        try:
            processes = {
                name: stack.enter_context(following(fake_fleet, recipe, job.id)) for name, recipe in recipes.items()
            }
            heads = {name: os.read(process.stdout.fileno(), 1) for name, process in processes.items() if process.stdout}
        finally:
            engine.resume()
        assert fake_fleet.redis.client_kill_filter(_type="pubsub") >= len(recipes)
        assert not client.fetch(job.id).ended
        shown = {name: heads[name].decode() + rest_of(process) for name, process in processes.items()}
        yield job, shown


def test_the_text_is_the_results_whatever_was_missed(disturbed: tuple[JobHandle, dict[str, str]]) -> None:
    job, shown = disturbed
    expected = job.wait(timeout=60).text + "\n"
    assert shown == dict.fromkeys(shown, expected)
    assert len(expected) == 201


def test_the_events_are_the_gateways(
    fake_fleet: Fleet, recipes: dict[str, list[str]], disturbed: tuple[JobHandle, dict[str, str]]
) -> None:
    job, _ = disturbed
    recipe, *_ = recipes.values()
    with following(fake_fleet, recipe, job.id, "--json") as process:
        lines = rest_of(process).splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(json.dumps(to_json(event))) for event in job.stream()]


def test_a_job_that_is_not_there_is_said(fake_fleet: Fleet, recipes: dict[str, list[str]]) -> None:
    for recipe in recipes.values():
        with following(fake_fleet, recipe, "job_01hzzzzzzzzzzzzzzzzzzzzzzz") as process:
            _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert len(err.decode().splitlines()) == 1
        assert "job_01hzzzzzzzzzzzzzzzzzzzzzzz" in err.decode()
