"""The steps between their plan and their outcome, in order; knows when to launch and to wait, decides no rows.

    without run-ahead    plan 1 - launch 1 - result 1 | plan 2 - launch 2 - result 2 | ...
    with it              plan 1 - launch 1 - plan 2 - launch 2 - result 1 | plan 3 - launch 3 - result 2 | ...

So a device has its next step before the host looks at what the last one brought.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from engine.errors import EngineStepError
from engine.runner import DoneStep, LaunchedStep, StepRunner
from engine.step_plan import SchedulePlan, StepResult

_NOTHING: Final = DoneStep(StepResult({}, {}))


@dataclass(frozen=True, slots=True)
class StepUnderWay:
    """`began`: when its plan was made, in seconds of the engine's clock."""

    plan: SchedulePlan
    launched: LaunchedStep
    began: float

    def result(self) -> StepResult:
        """Waits for the step. Raises EngineStepError."""
        try:
            return self.launched.result()
        except (RuntimeError, MemoryError) as error:
            raise EngineStepError(f"the step failed: {error}") from error


class Pipeline:
    """Steps that `runner` has begun and nobody has heard of: one at a time, or two where it runs ahead."""

    def __init__(self, runner: StepRunner, clock: Callable[[], float]) -> None:
        self._runner = runner
        self._most = 2 if runner.runs_ahead else 1
        self._clock = clock
        self._steps: deque[StepUnderWay] = deque()

    @property
    def is_idle(self) -> bool:
        return not self._steps

    def next(self, plan: Callable[[], SchedulePlan]) -> StepUnderWay:
        """The oldest step, once `plan` was asked for those that may be under way beside it. Raises EngineStepError."""
        while len(self._steps) < self._most:
            began, planned = self._clock(), plan()
            if planned.is_empty and self._steps:
                break
            self._steps.append(StepUnderWay(planned, self._launch(planned), began))
        return self._steps.popleft()

    def _launch(self, plan: SchedulePlan) -> LaunchedStep:
        try:
            return self._runner.launch(plan) if plan.chunks else _NOTHING
        except (RuntimeError, MemoryError) as error:
            raise EngineStepError(f"the step failed: {error}") from error
