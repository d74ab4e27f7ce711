"""An engine whose process dies at a named moment of its work, or which fails a request, or goes mad.

Knows no pipe and no jobs.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from headrace.contract.errors import ErrorInfo
from tests.chaos.doom import Doom
from workers.inference.child import Runner, load_runner
from workers.inference.messages import AddRequest, ChildOptions, Output, Stepped

MADNESS = "child.madness"
"""While this sentence stands, every request that is running here gets wrong tokens, until its end."""

WITHIN_S = 0.002
"""How far into a step it dies: less than a step takes."""


@dataclass
class DoomedEngine:
    """Passes everything on to the real one, or to the fake one."""

    runner: Runner
    doom: Doom
    fresh: bool = False
    mad: set[str] = field(default_factory=set)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def add(self, request: AddRequest) -> Output | None:
        self.fresh = True
        return self.runner.add(request)

    def step(self) -> Stepped:
        named, self.fresh = "child.prefill" if self.fresh else "child.step", False
        dies = self.doom.due(named)
        if dies:
            self.doom.strike_in(WITHIN_S)
        stepped = self.runner.step()
        if dies:
            time.sleep(60)  # what this step brought is told to nobody
        if any(output.finish_reason for output in stepped.outputs):
            self.doom.at("child.last")
        if stepped.outputs and self.doom.due("child.error"):
            return self._failed(stepped)
        if self.doom.awaits(MADNESS):
            self.mad.update(output.request_id for output in stepped.outputs)
        return self._maddened(stepped) if self.mad else stepped

    def _maddened(self, stepped: Stepped) -> Stepped:
        outputs = (
            output._replace(token_ids=tuple(token ^ 1 for token in output.token_ids))
            if output.request_id in self.mad
            else output
            for output in stepped.outputs
        )
        return stepped._replace(outputs=tuple(outputs))

    def _failed(self, stepped: Stepped) -> Stepped:
        """The first request of the step fails, in a way that may pass."""
        struck, *others = stepped.outputs
        self.runner.abort((struck.request_id,))
        error = ErrorInfo("engine_error", "The engine was told to fail.", retryable=True)
        failed = Output(struck.request_id, struck.offset, (), error=error)
        return stepped._replace(outputs=(failed, *others))


def load_doomed(doom: Doom, options: ChildOptions) -> Runner:
    """As the child loads its engine; dies before it is ready where that is the point."""
    doom.at("child.start")
    engine: Any = DoomedEngine(load_runner(options), doom)
    return engine  # type: ignore[no-any-return]
