"""llama.cpp's own `llama-batched-bench` on the same GGUF: prompts of one length, answers of one length, its own loop.

It makes up its prompts itself and leaves sampling out. Its count of generated tokens leaves out the one that the prompt
yields, so it is asked for one token fewer and given the same output.
"""

import json
import subprocess
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.peers.llama_cpp import ENVIRONMENT, LIBRARIES, VERSION
from benchmarks.peers.peer import Peer
from benchmarks.peers.serving import Options, RunnerAsk, serve

PEER = Peer(
    "llama-batched-bench",
    "llama.cpp, same GGUF, llama-batched-bench",
    __name__,
    ENVIRONMENT,
    workloads=frozenset(("n1", "n8", "n16", "n32")),
)

_ROOM: Final = 256  # a sequence's room is a multiple of this


class BatchedBench:
    """A process of its own for every run; what it reports leaves loading out."""

    def __init__(self, options: Options) -> None:
        threads = str(options["threads"])
        self._command = [str(LIBRARIES / "llama-batched-bench"), "-m", options["model"], "--output-format", "jsonl"]
        self._command += ["-t", threads, "-tb", threads]

    def about(self) -> dict[str, Any]:
        return {"llama.cpp": f"llama-cpp-python {VERSION}", "flags": self._command[3:]}

    def prepare(self, asks: Sequence[RunnerAsk]) -> Any:
        ((prompt, new_tokens),) = {(len(prompt), new_tokens) for prompt, new_tokens in asks}
        room = -(-(prompt + new_tokens) // _ROOM) * _ROOM
        sizes = {"-npp": prompt, "-ntg": new_tokens - 1, "-npl": len(asks), "-c": len(asks) * room}
        return [word for flag, size in sizes.items() for word in (flag, str(size))], [new_tokens] * len(asks)

    def run(self, prepared: Any) -> tuple[list[int], float]:
        words, tokens = prepared
        done = subprocess.run([*self._command, *words], stdout=subprocess.PIPE, text=True, check=True)
        return tokens, float(json.loads(_last_json(done.stdout))["t"])


def _last_json(text: str) -> str:
    return next(line for line in reversed(text.splitlines()) if line.startswith("{"))


if __name__ == "__main__":
    serve(BatchedBench)
