"""The end, in order."""

from workers.inference.drain import DrainSteps, drain


def test_the_order_of_the_end() -> None:
    told: list[str] = []
    steps = DrainSteps(
        stop_claiming=lambda: told.append("stop claiming"),
        tell_emitter=lambda: told.append("tell emitter"),
        stop_engine=lambda _: told.append("stop engine"),
        await_emitter=lambda _: told.append("await emitter"),
        stop_threads=lambda _: told.append("stop threads"),
        say_goodbye=lambda: told.append("goodbye"),
    )
    drain(steps)
    assert told == ["stop claiming", "tell emitter", "stop engine", "await emitter", "stop threads", "goodbye"]
