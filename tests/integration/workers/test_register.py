"""`python -m workers register`: the card of a worker, without one."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.contract.errors import SetupError
from headrace.contract.model_card import ModelCard
from headrace.store.cards import read_releases
from tests.integration.workers.fleet import Fleet, eventually
from tests.tiny_model import write_tiny_model
from workers.register import register


def without_measurements(card: ModelCard) -> ModelCard:
    return replace(card, digest="", tokens_per_second=None)


@pytest.mark.parametrize("model", ["fake:kv_tokens=999", "tiny=file:{path}"])
def test_it_writes_the_card_that_a_worker_writes(model: str, fleet: Fleet, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    settings = fleet.settings(model.format(path=path), release="canary")
    registered = register(settings)
    assert [release.card for release in read_releases(fleet.client)] == [registered]
    assert registered.digest == ""
    with fleet.worker(settings) as worker:
        started = eventually(lambda: (card := fleet.card(worker.lane)).digest and card, "the worker's own card")
    assert isinstance(started, ModelCard)
    assert without_measurements(started) == registered
    assert register(settings) == started, "a card keeps what only a running worker knows"


def test_the_card_of_a_larger_worker_that_lives_is_not_lowered(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:kv_tokens=4000")) as worker:
        eventually(lambda: fleet.card(worker.lane).digest, "the worker's own card")
        assert register(fleet.settings("fake:kv_tokens=50")).max_kv_tokens == 4000


def test_a_damaged_file_is_said_in_one_line(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(SetupError, match=r"bad\.gguf"):
        register(fleet.settings(f"file:{tmp_path / 'bad.gguf'}"))


def test_as_a_command(fleet: Fleet) -> None:
    command = [sys.executable, "-m", "workers", "register", "--model", "a=fake:", "--redis-url", fleet.server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()[:3]) == (0, ["a@stable", "is", "registered:"])
    assert fleet.card("a@stable").max_kv_tokens == 8192
