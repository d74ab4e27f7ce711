"""What a worker says of its speed, as its card in the store has it."""

from dataclasses import replace

from headrace.openai.projection import model_object
from headrace.telemetry.metrics import Recorder
from tests.integration.workers.fleet import Fleet
from workers.inference.fake_engine import FakeEngine, Knobs
from workers.inference.heartbeat import Heartbeat, HeartbeatParts
from workers.inference.holdings import Holdings
from workers.inference.messages import Ready, StepStats
from workers.inference.metrics import MEASURED_STEPS, record_step

READY = FakeEngine(Knobs()).ready()


class Speaker:
    """A worker's heartbeat without the worker."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.metrics = Recorder()
        self._fleet = fleet
        parts = HeartbeatParts(
            name, "m@stable", "m", "stable", fleet.client, Holdings(lambda: None), self.metrics, lambda: None
        )
        self._heartbeat = Heartbeat(parts)

    def announced(self, ready: Ready = READY) -> float | None:
        """The speed that the card shows once it has been announced again."""
        self._heartbeat.ready(replace(ready))
        self._heartbeat.beat()
        shown: float | None = model_object(self._fleet.card("m@stable"))["tokens_per_second"]
        return shown

    def step(self, times: int) -> None:
        for _ in range(times):
            record_step(self.metrics, StepStats(scheduled=("r",), decoded_tokens=8, seconds=0.0625))


def test_a_card_shows_the_speed_that_was_measured_last_of_its_revision(fleet: Fleet) -> None:
    one, two = Speaker(fleet, "w_1"), Speaker(fleet, "w_2")
    assert one.announced() is None
    one.step(MEASURED_STEPS - 1)
    assert one.announced() is None
    one.step(1)
    assert one.announced() == 128.0
    assert two.announced() == 128.0, "a worker that has not measured takes nothing away"
    assert two.announced(replace(READY, facts=replace(READY.facts, revision="another"))) is None
