"""Two models in one fleet through the openai SDK: both are listed, and each is served by its own workers."""

from pathlib import Path

import pytest
from openai import OpenAI

from headrace import Client
from headrace.contract.events import Started
from tests.e2e.fleet import running
from tests.tiny_model import write_tiny_model

MODELS = ("tiny", "quick")


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    return f"tiny=file:{write_tiny_model(tmp_path / 'tiny.gguf')}"


def test_two_models_in_one_fleet(tiny: str, tmp_path: Path) -> None:
    with (
        running(tmp_path, model=[tiny, "quick=fake:speed=200"]) as fleet,
        OpenAI(base_url=f"{fleet.url}/v1", api_key="none") as openai,
        Client(fleet.url) as client,
    ):
        lanes = {beat.worker: beat.lane for beat, _ in fleet.beats()}
        assert sorted(lanes.values()) == ["quick@stable", "tiny@stable"]
        assert sorted(model.id for model in openai.models.list()) == ["quick", "tiny"]
        for model in MODELS:
            chat = openai.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "Who are you?"}], max_tokens=4
            )
            assert chat.model == model
            assert chat.usage is not None
            assert 0 < chat.usage.completion_tokens <= 4
        jobs = [(model, client.submit(model=model, prompt=f"{n}", max_tokens=4)) for n in range(4) for model in MODELS]
        for model, job in jobs:
            (began,) = (event for event in job.stream() if isinstance(event, Started))
            assert lanes[began.worker] == f"{model}@stable"
