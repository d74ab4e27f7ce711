"""Kill a gateway at a random moment under submits, streams and waiters of a fleet with the fake engine, many times.

python -m tests.integration.gateway.gateway_deaths --rounds 50      # one JSON line a round; exit 1 if anything is lost

Each round has a gateway of its own to kill and goes on at the fleet's. The kill may come while jobs are submitted,
while they wait, while they are streamed, or when some have ended.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx2

from headrace import AsyncClient
from headrace.client import AsyncJobHandle
from headrace.client.sse import Parser
from headrace.contract.events import TERMINAL_TYPES, Delta, Event, from_json
from headrace.contract.generation import Sampling
from tests.e2e.fleet import Fleet, running
from tests.integration.gateway.doomed_gateway import DoomedGateway, doomed
from workers.inference.fake_engine import token_at
from workers.inference.messages import AddRequest

BY_SDK, BY_HAND, WAITING = 32, 8, 8
LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Round:
    """What one kill did. It came when the streams together had seen so many tokens; `begun` of them had seen some, and
    `cut` of those had not ended."""

    number: int
    killed_after: int
    begun: int
    cut: int
    tokens: int
    faults: tuple[str, ...]
    seconds: float


class Reader:
    """One job and what came of it. `tokens` is how many it may have."""

    def __init__(self, number: int, mark: str) -> None:
        dice = random.Random(f"{mark} {number}")
        self.name = f"reader {number}"
        self.prompt = f"{mark} {number}"
        self.tokens = dice.randint(50, 150)
        self.seed = dice.randrange(2**31)
        self.events: list[Event] = []
        self.text = ""

    @property
    def undisturbed(self) -> list[int]:
        request = AddRequest("", tuple(self.prompt.encode()), Sampling(seed=self.seed), 0, self.tokens)
        return [token_at(request, offset) for offset in range(self.tokens)]

    @property
    def seen(self) -> int:
        return sum(len(event.token_ids) for event in self.events if isinstance(event, Delta))

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].type in TERMINAL_TYPES

    def faults(self) -> list[str]:
        """Gaps, repeats, other tokens, another text, no end or several."""
        deltas = [event for event in self.events if isinstance(event, Delta)]
        found = {
            "seq": [event.seq for event in self.events] == list(range(1, len(self.events) + 1)),
            "ids": [token for delta in deltas for token in delta.token_ids] == self.undisturbed,
            "text": "".join(delta.text for delta in deltas) == bytes(self.undisturbed).decode(),
            "end": [event.type for event in self.events if event.type in TERMINAL_TYPES] == ["completed"],
        }
        return [f"{self.name}: {name}" for name, right in found.items() if not right]

    async def submit(self, client: AsyncClient, mark: str, wait: float | None = None) -> AsyncJobHandle:
        return await client.submit(
            model="fake", prompt=self.prompt, max_tokens=self.tokens, seed=self.seed, metadata={"of": mark}, wait=wait
        )


async def by_sdk(client: AsyncClient, reader: Reader, mark: str) -> None:
    job = await reader.submit(client, mark)
    async for event in job.stream():
        reader.events.append(event)


async def by_hand(client: AsyncClient, urls: list[str], reader: Reader, mark: str) -> None:
    job, cursor = await reader.submit(client, mark), ""
    async with httpx2.AsyncClient(timeout=LIMIT_S) as http:
        for url in urls:
            parser, headers = Parser(), {"Last-Event-ID": cursor} if cursor else {}
            with suppress(httpx2.TransportError):
                async with http.stream("GET", f"{url}/v1/jobs/{job.id}/events", headers=headers) as reply:
                    async for chunk in reply.aiter_raw():
                        for message in parser.feed(chunk):
                            cursor = message.id
                            reader.events.append(from_json(json.loads(message.data)))
            if reader.ended:
                return


async def waiting(client: AsyncClient, reader: Reader, number: int, mark: str) -> None:
    """Half of them hold on to their submit, the others ask again and again."""
    job = await reader.submit(client, mark, wait=30.0 if number % 2 else None)
    reader.text = (await job.wait(timeout=LIMIT_S)).text


async def one_round(fleet: Fleet, number: int, dice: random.Random) -> Round:
    mark = f"round {number} {dice.random()}"
    async with doomed(fleet.redis_url) as gateway, AsyncClient([gateway.url, fleet.url]) as client:
        streams = [Reader(n, mark) for n in range(BY_SDK + BY_HAND)]
        waiters = [Reader(n, mark) for n in range(BY_SDK + BY_HAND, BY_SDK + BY_HAND + WAITING)]
        began = time.monotonic()
        killed_after = dice.choice([0, dice.randrange(sum(reader.tokens for reader in streams) * 4 // 5)])
        killing = asyncio.create_task(_kill(gateway, killed_after, dice.uniform(0.0, 0.5), streams))
        async with asyncio.timeout(LIMIT_S):
            outcomes = await asyncio.gather(
                *(by_sdk(client, reader, mark) for reader in streams[:BY_SDK]),
                *(by_hand(client, [gateway.url, fleet.url], reader, mark) for reader in streams[BY_SDK:]),
                *(waiting(client, reader, n, mark) for n, reader in enumerate(waiters)),
                return_exceptions=True,
            )
            begun, cut = await killing
        jobs = [view.id async for view in client.jobs(metadata={"of": mark})]
    faults = [repr(outcome) for outcome in outcomes if outcome is not None]
    faults += [fault for reader in streams for fault in reader.faults()]
    faults += [f"{r.name}: text" for r in waiters if r.text != bytes(r.undisturbed).decode()]
    if len(jobs) != len(streams) + len(waiters):
        faults.append(f"{len(jobs)} jobs of {len(streams) + len(waiters)} submits")
    tokens = sum(reader.tokens for reader in streams + waiters)
    return Round(number, killed_after, begun, cut, tokens, tuple(faults), round(time.monotonic() - began, 2))


async def _kill(gateway: DoomedGateway, tokens: int, seconds: float, streams: list[Reader]) -> tuple[int, int]:
    """After so many tokens; if there need to be none, after a part of a second, while jobs are submitted."""
    if tokens == 0:
        await asyncio.sleep(seconds)
    while sum(reader.seen for reader in streams) < tokens:
        await asyncio.sleep(0.01)
    gateway.kill()
    begun = [reader for reader in streams if reader.seen]
    return len(begun), sum(not reader.ended for reader in begun)


async def rounds(count: int, seed: int) -> bool:
    """Whether all went well."""
    dice, well = random.Random(seed), True
    with tempfile.TemporaryDirectory(prefix="hr-") as folder, running(Path(folder), model="fake:speed=100") as fleet:
        for number in range(count):
            done = await one_round(fleet, number, dice)
            well = well and not done.faults
            sys.stdout.write(json.dumps(asdict(done)) + "\n")
            sys.stdout.flush()
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    return 0 if asyncio.run(rounds(flags.rounds, flags.seed)) else 1


if __name__ == "__main__":
    sys.exit(main())
