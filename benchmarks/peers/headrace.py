"""Our own engine as a runner: `generate()` with the settings that a user gets, and the variants that are measured."""

import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.peer import Peer
from benchmarks.peers.serving import Options, RunnerAsk, serve

_PATHS: Final = ("model", "cache_dir")
_MEASURE: Final = "measure"

OURS = Peer("headrace", "Headrace", __name__)
REFERENCE = Peer("reference", "Headrace, reference numerics", __name__, options={"numerics": "reference"})
CACHE_ON = Peer("prefix-cache-on", "cache on", __name__, options={_MEASURE: "first tokens", "prefix_cache": True})
CACHE_OFF = Peer("prefix-cache-off", "cache off", __name__, options={_MEASURE: "first tokens", "prefix_cache": False})
NATURAL_ENDS = Peer("engine", "the engine alone", __name__, options={_MEASURE: "natural ends"})


class Headrace:
    """`options` are EngineConfig's own, and what to measure; `cache_dir` is for starts with nothing prepared."""

    ignore_eos = True

    def __init__(self, options: Options) -> None:
        self._module = import_module("engine")
        given = {name: Path(value) if name in _PATHS and value else value for name, value in options.items()}
        self._engine = self._module.Engine(self._module.EngineConfig(**given))
        self._flags = {name: value for name, value in options.items() if name not in _PATHS}

    def about(self) -> dict[str, Any]:
        return {"flags": self._flags, "digest": self._engine.digest}

    def prepare(self, asks: Sequence[RunnerAsk]) -> Any:
        params = [
            self._module.SamplingParams(max_tokens=new_tokens, temperature=0, ignore_eos=self.ignore_eos)
            for _, new_tokens in asks
        ]
        return [prompt for prompt, _ in asks], params

    def run(self, prepared: Any) -> list[int] | tuple[list[int], float]:
        return [len(completion.token_ids) for completion in self._engine.generate(*prepared)]


class NaturalEnds(Headrace):
    """Requests end where the model ends them, as behind a gateway that has no way to say otherwise."""

    ignore_eos = False


class FirstTokens(Headrace):
    """Its seconds are those until the last of all first tokens."""

    def run(self, prepared: Any) -> tuple[list[int], float]:
        began = time.perf_counter()
        counts: dict[str, int] = {}
        for number, (prompt, params) in enumerate(zip(*prepared, strict=True)):
            counts[f"request-{number}"] = 0
            self._engine.add_request(f"request-{number}", prompt, params)
        last_first = 0.0
        while self._engine.has_unfinished:
            for output in self._engine.step().outputs:
                if output.token_ids and not counts[output.request_id]:
                    last_first = time.perf_counter() - began
                counts[output.request_id] += len(output.token_ids)
        return list(counts.values()), last_first


_MEASURES: Final = {"throughput": Headrace, "natural ends": NaturalEnds, "first tokens": FirstTokens}


def load(options: Options) -> Headrace:
    return _MEASURES[options.pop(_MEASURE, "throughput")](options)


if __name__ == "__main__":
    serve(load)
