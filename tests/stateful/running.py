"""Runs the two machines against real servers, so many examples long. Knows no rule."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from headrace.store.connection import connect
from tests.contracts.bench import Bench, MemoryBench, RedisBench
from tests.redis_server import RedisServer
from tests.stateful.accidents import AnyAccident
from tests.stateful.ground import TIMING
from tests.stateful.machine import AnyOrder
from tests.stateful.still_time import still_time


def both_queues(server: RedisServer, *, examples: int, steps: int, with_seed: int | None = None) -> None:
    """Both queues against the model. Raises AssertionError with the shortest way to a difference."""

    @contextmanager
    def sides() -> Iterator[Mapping[str, Bench]]:
        with connect(server.url) as client, still_time():
            client.flushall()
            yield {"redis": RedisBench(client, TIMING), "memory": MemoryBench(TIMING)}

    class Both(AnyOrder):
        open_sides = staticmethod(sides)

    _run(Both, examples, steps, with_seed)


def accidents(server: RedisServer, *, examples: int, steps: int, with_seed: int | None = None) -> None:
    """Redis alone against the model, with a server that is killed, restarted and replaced."""

    @contextmanager
    def sides() -> Iterator[Mapping[str, Bench]]:
        with connect(server.url) as client, still_time():
            client.flushall()
            yield {"redis": RedisBench(client, TIMING)}

    class Alone(AnyAccident):
        open_sides = staticmethod(sides)
        restart = staticmethod(server.restart)

    _run(Alone, examples, steps, with_seed)


def _run(machine: type[AnyOrder], examples: int, steps: int, with_seed: int | None) -> None:
    wanted = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.normal,
        print_blob=False,
    )
    seeded = machine if with_seed is None else seed(with_seed)(machine)
    run_state_machine_as_test(seeded, settings=wanted)
