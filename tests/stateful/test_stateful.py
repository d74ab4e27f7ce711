"""Any order of verbs and accidents: both queues do as PROTOCOL says. `python -m tests.stateful` does it for longer."""

from tests.redis_server import running_redis
from tests.stateful.running import accidents, both_queues


def test_both_queues_do_what_the_protocol_says() -> None:
    with running_redis(fsync="everysec") as server:
        both_queues(server, examples=12, steps=35)


def test_so_does_redis_when_it_is_killed_or_replaced() -> None:
    with running_redis() as server:
        accidents(server, examples=6, steps=25)
