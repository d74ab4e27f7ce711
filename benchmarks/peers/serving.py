"""The runner's side of a measurement: loads one engine, then runs what it is asked. Knows JSON lines, no engine.

One JSON object a line. Out, once: {"load_s", "about"}. In: {"asks": [[prompt_ids, new_tokens], ...]}; out: {"seconds",
"tokens": [...]}. End of input is the end. Standard library only: every engine's environment imports this.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

RunnerAsk: TypeAlias = tuple[list[int], int]
"""Prompt ids, and how many tokens to generate."""

Options: TypeAlias = dict[str, Any]


class Runner(Protocol):
    """One loaded engine."""

    def about(self) -> dict[str, Any]:
        """Versions and flags, for the record."""
        ...

    def prepare(self, asks: Sequence[RunnerAsk]) -> Any:
        """The requests in the engine's own types; not timed."""
        ...

    def run(self, prepared: Any) -> list[int] | tuple[list[int], float]:
        """All requests at once, to their end. How many tokens each got, in their order; with the seconds that it took
        where only the engine itself can tell them."""
        ...


def serve(load: Callable[[Options], Runner]) -> None:
    """Serve until standard input ends. Options stand in the first argument, as JSON.

    An engine that raises ends the process: its last words are on standard error, which the driver keeps.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # engines print
    began = time.perf_counter()
    runner = load(json.loads(sys.argv[1]))
    _reply(replies, {"load_s": time.perf_counter() - began, "about": runner.about()})
    for line in sys.stdin:
        prepared = runner.prepare([(prompt, new_tokens) for prompt, new_tokens in json.loads(line)["asks"]])
        began = time.perf_counter()
        outcome = runner.run(prepared)
        elapsed = time.perf_counter() - began
        tokens, seconds = outcome if isinstance(outcome, tuple) else (outcome, elapsed)
        _reply(replies, {"seconds": seconds, "tokens": tokens})


def _reply(replies: Any, message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()
