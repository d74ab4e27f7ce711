"""An engine whose process dies at a named moment of its work, or which fails a request, or goes mad.

Knows no pipe and no jobs.
"""

import time
from typing import Any

from headrace.contract.errors import ErrorInfo
from tests.chaos.doom import Doom
from tests.chaos.doomed import Doomed
from workers.inference.child import Runner, load_runner
from workers.inference.messages import AddRequest, ChildOptions, Output, Stepped

MADNESS = "child.madness"
"""While this sentence stands, every request that is running here gets wrong tokens, until its end."""

WITHIN_S = 0.002
"""How far into a step it dies: less than a step takes."""


class DoomedEngine(Doomed):
    """Around the real one, or the fake one."""

    def __init__(self, runner: Runner, doom: Doom) -> None:
        super().__init__(runner, doom)
        self._fresh = False
        self._mad: set[str] = set()

    def add(self, request: AddRequest) -> Output | None:
        self._fresh = True
        refused: Output | None = self._real.add(request)
        return refused

    def step(self) -> Stepped:
        named, self._fresh = "child.prefill" if self._fresh else "child.step", False
        dies = self._doom.due(named)
        if dies:
            self._doom.strike_in(WITHIN_S)
        stepped = self._real.step()
        if dies:
            time.sleep(60)  # what this step brought is told to nobody
        if any(output.finish_reason for output in stepped.outputs):
            self._doom.at("child.last")
        if stepped.outputs and self._doom.due("child.error"):
            return self._failed(stepped)
        if self._doom.awaits(MADNESS):
            self._mad.update(output.request_id for output in stepped.outputs)
        return self._maddened(stepped) if self._mad else stepped

    def _maddened(self, stepped: Stepped) -> Stepped:
        outputs = (
            output._replace(token_ids=tuple(token ^ 1 for token in output.token_ids))
            if output.request_id in self._mad
            else output
            for output in stepped.outputs
        )
        return stepped._replace(outputs=tuple(outputs))

    def _failed(self, stepped: Stepped) -> Stepped:
        """The first request of the step fails, in a way that may pass."""
        struck, *others = stepped.outputs
        self._real.abort((struck.request_id,))
        error = ErrorInfo("engine_error", "The engine was told to fail.", retryable=True)
        failed = Output(struck.request_id, struck.offset, (), error=error)
        return stepped._replace(outputs=(failed, *others))


def load_doomed(doom: Doom, options: ChildOptions) -> Runner:
    """As the child loads its engine; dies before it is ready where that is the point."""
    doom.at("child.start")
    engine: Any = DoomedEngine(load_runner(options), doom)
    return engine  # type: ignore[no-any-return]
