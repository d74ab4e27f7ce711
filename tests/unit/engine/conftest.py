"""A tiny model for the tests of this folder, and one thread: two only wait for each other at this size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import Engine
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(autouse=True)
def sound_engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test did to an engine that it made, every page and request of it is accounted for."""
    made: list[Engine] = []
    make = Engine.__init__

    def noted(engine: Engine, *args: Any, **knobs: Any) -> None:
        make(engine, *args, **knobs)
        made.append(engine)

    monkeypatch.setattr(Engine, "__init__", noted)
    yield
    for engine in made:
        engine.check_integrity()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
