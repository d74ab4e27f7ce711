"""What the engine is told in the words of the pipe, and what it says back: one tiny engine, one request at a time."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from headrace.contract.generation import Sampling
from headrace.settings import EngineSettings
from tests.tiny_model import write_tiny_model
from workers.inference.messages import AddRequest, Output
from workers.inference.translate import EngineRunner, engine_config, load_engine


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> EngineRunner:
    path = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")
    return load_engine(str(path), EngineSettings(backend="torch", kv_budget_mb=4, threads=1, max_num_seqs=1))


def ask(name: str, prompt: Iterable[int], priority: int = 0, deadline_s: float | None = None) -> AddRequest:
    return AddRequest(
        name, tuple(prompt), Sampling(seed=3, temperature=0.0), 0, 2, priority=priority, deadline_s=deadline_s
    )


def run(runner: EngineRunner, *requests: AddRequest) -> list[Output]:
    assert [runner.add(request) for request in requests] == [None] * len(requests)
    outputs: list[Output] = []
    while runner.busy():
        outputs += runner.step().outputs
    return outputs


def test_urgent_requests_come_first_and_near_deadlines_before_them(runner: EngineRunner) -> None:
    waiting = (
        ask("batch", b"b", priority=2),
        ask("standard", b"s", priority=1),
        ask("interactive", b"i"),
        ask("soon", b"d", deadline_s=1.0),
        ask("some day", b"l", priority=1, deadline_s=1e6),
    )
    ended = [output.request_id for output in run(runner, *waiting) if output.finish_reason]
    assert ended == ["soon", "interactive", "standard", "some day", "batch"]


def test_every_output_says_how_much_of_the_prompt_was_cached(runner: EngineRunner) -> None:
    prompt = range(40, 80)
    first, second = run(runner, ask("first", prompt)), run(runner, ask("second", prompt))
    assert [output.cached_tokens for output in first] == [0, 0]
    assert [output.cached_tokens for output in second] == [32, 32]  # whole pages of 16


def test_the_engine_keeps_its_files_where_the_settings_say(tmp_path: Path) -> None:
    assert engine_config("model.gguf", EngineSettings(cache_dir=tmp_path)).cache_dir == tmp_path
