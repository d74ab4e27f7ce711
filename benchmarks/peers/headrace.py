"""Our own engine as a runner: `generate()` with the settings that a user gets. Also its reference numerics."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from benchmarks.peers.peer import Peer
from benchmarks.peers.serving import Options, RunnerAsk, serve

OURS = Peer("headrace", "Headrace", __name__, options={"numerics": "exact"})
REFERENCE = Peer("reference", "Headrace, reference numerics", __name__, options={"numerics": "reference"})


class Headrace:
    def __init__(self, options: Options) -> None:
        self._engine = import_module("engine")
        known = {name: value for name, value in options.items() if name != "model"}
        config = self._engine.EngineConfig(model=options["model"], **known)
        self._instance = self._engine.Engine(config)
        self._known = known

    def about(self) -> dict[str, Any]:
        return {"flags": self._known, "digest": self._instance.digest}

    def prepare(self, asks: Sequence[RunnerAsk]) -> Any:
        params = [
            self._engine.SamplingParams(max_tokens=new_tokens, temperature=0, ignore_eos=True) for _, new_tokens in asks
        ]
        return [prompt for prompt, _ in asks], params

    def run(self, prepared: Any) -> list[int]:
        return [len(completion.token_ids) for completion in self._instance.generate(*prepared)]


if __name__ == "__main__":
    serve(Headrace)
