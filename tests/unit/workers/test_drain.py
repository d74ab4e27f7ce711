"""The end, in order and in time."""

import pytest

from workers.inference.drain import ENGINE_S, THREAD_S, DrainSteps, drain


class Story:
    """Writes down what is called, and how long each may take."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.seconds: dict[str, float] = {}

    def tell(self, within_s: float) -> None:
        drain(
            DrainSteps(
                stop_claiming=lambda: self._step("stop claiming"),
                hand_back=lambda: self._step("hand back"),
                ask_engine_to_stop=lambda: self._step("ask engine to stop"),
                await_intake=lambda s: self._step("await intake", s),
                await_emitter=lambda s: self._step("await emitter", s),
                stop_engine=lambda s: self._step("stop engine", s),
                stop_threads=lambda s: self._step("stop threads", s),
                say_goodbye=lambda: self._step("goodbye"),
            ),
            within_s,
        )

    def _step(self, name: str, seconds: float = 0.0) -> None:
        self.told.append(name)
        self.seconds[name] = seconds


def test_jobs_go_back_before_anything_is_waited_for() -> None:
    story = Story()
    story.tell(10.0)
    waits = ["await intake", "await emitter", "stop engine", "stop threads"]
    assert story.told == ["stop claiming", "hand back", "ask engine to stop", *waits, "goodbye"]


@pytest.mark.parametrize("within_s", [0.0, 1.0, 10.0, 120.0])
def test_a_store_that_is_away_leaves_time_for_the_rest(within_s: float) -> None:
    story = Story()
    story.tell(within_s)
    assert 0.0 <= story.seconds["await intake"] <= max(0.0, within_s - ENGINE_S - 2 * THREAD_S)
    assert 0.0 <= story.seconds["await emitter"] <= story.seconds["await intake"]
    assert (story.seconds["stop engine"], story.seconds["stop threads"]) == (ENGINE_S, THREAD_S)
