"""An engine on a tiny model, stepped by hand, with a clock that is moved by hand. Knows no tests."""

from dataclasses import replace
from pathlib import Path

from engine import Engine, EngineConfig, RequestOutput, SamplingParams

PROMPT = tuple(range(40, 60))
PARAMS = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
SAMPLED = SamplingParams(max_tokens=30, temperature=1.2, seed=11, frequency_penalty=0.4, ignore_eos=True)


class Clock:
    """Monotonic seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def build(model: Path, clock: Clock | None = None, **knobs: int | str | bool) -> Engine:
    """Steps are cut by rows and keys alone, and so the same on every machine."""
    config = EngineConfig(model, device="cpu", backend="torch", num_pages=64, max_batched_tokens=256, step_seconds=None)
    config = replace(config, **knobs)  # type: ignore[arg-type]
    return Engine(config, clock) if clock else Engine(config)


def run(engine: Engine) -> list[RequestOutput]:
    """Step until idle."""
    outputs: list[RequestOutput] = []
    while engine.has_unfinished:
        outputs += engine.step().outputs
    engine.check_integrity()
    return outputs


def tokens_of(outputs: list[RequestOutput], request_id: str) -> tuple[int, ...]:
    return tuple(token for output in outputs if output.request_id == request_id for token in output.token_ids)
