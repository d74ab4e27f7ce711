"""What a token costs Redis in the journal of a job that has ended, and what the server's options do to that.

    python -m benchmarks.journal [--tokens 1024] [--gather 8] [--jobs 20]

Jobs are accepted, claimed, appended to and finished through the real verbs; `MEMORY USAGE` of the journal over its
tokens. Beside the embedded Redis' options a server as it comes, whose stream nodes are four times as large, and other
numbers of tokens: most journals are short.
"""

import statistics
import sys
from collections.abc import Sequence
from typing import Final

import redis

from benchmarks import results
from benchmarks.arguments import common
from benchmarks.figures import Figure
from benchmarks.results import say
from benchmarks.serving.publisher import claim_all
from benchmarks.serving.record import record
from benchmarks.serving.stand import MODEL, announce, submit
from headrace.contract.events import Delta
from headrace.contract.generation import Choice, Usage
from headrace.contract.job import Job, State
from headrace.queue.base import Append, Ending, Timing
from headrace.queue.redis import RedisQueue
from headrace.store import keys
from tests.redis_server import running_redis

BAR: Final = "≤ 12 bytes"
BAR_TOKENS: Final = 1_024
NODES: Final = {"as embedded": 1_024, "as Redis comes": 4_096}
_VOCABULARY: Final = 49_152


def write(queue: RedisQueue, job: Job, tokens: int, gather: int) -> None:
    """Carry a claimed job to its end, `gather` tokens an entry. Ids are spread over a vocabulary as a text's are."""
    ids = tuple(offset * 7_919 % _VOCABULARY for offset in range(tokens))
    for offset in range(0, tokens, gather):
        part = ids[offset : offset + gather]
        reason = "length" if offset + gather >= tokens else None
        queue.append([Append(job.lease, (Delta(0, 0, offset, part, "", reason),))])
    queue.finish(job.lease, Ending(State.SUCCEEDED, Usage(2, tokens), (Choice(0, ids, "length"),)))


def bytes_a_token(client: redis.Redis, jobs: int, tokens: int, gather: int) -> list[float]:
    """Of each job's journal."""
    client.flushall()
    announce(client)
    submit(client, jobs, max_tokens=tokens)
    queue, sizes = RedisQueue(client, Timing()), []
    for job in claim_all(client, MODEL, jobs):
        write(queue, job, tokens, gather)
        sizes.append((client.memory_usage(keys.journal(job.id), samples=0) or 0) / tokens)
    return sizes


def main(arguments: Sequence[str] | None = None) -> int:
    parser = common("benchmarks.journal", __doc__, rounds=1, output=results.FOLDER / "journal.json")
    parser.add_argument("--tokens", type=int, nargs="+", default=[BAR_TOKENS, 128, 16], help="of a job")
    parser.add_argument("--gather", type=int, default=8, help="tokens of an entry")
    parser.add_argument("--jobs", type=int, default=20)
    given = parser.parse_args(arguments)
    figures = []
    with running_redis(fsync="no") as server, redis.Redis.from_url(server.url) as client:
        for tokens in given.tokens:
            for node, size in NODES.items():
                client.config_set("stream-node-max-bytes", size)
                sizes = bytes_a_token(client, given.jobs, tokens, given.gather)
                name = f"journal of {tokens:,} tokens, {given.gather} an entry, nodes of {size} bytes {node}"
                bar = BAR if (tokens, size) == (BAR_TOKENS, NODES["as embedded"]) else ""
                figures.append(Figure(name, f"{statistics.median(sizes):.1f} bytes a token", tuple(sizes), bar))
                say(f"{name}: {figures[-1].shown}")
        redis_version = str(client.info("server")["redis_version"])
    record(given.output, "no model", {"gather": given.gather, "jobs": given.jobs, "redis": redis_version}, [], figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
