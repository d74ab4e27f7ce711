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
    """What one kill did. `begun` streams had seen a token by then, and `cut` of them had not ended."""

    number: int
    killed_after_s: float
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


async def one_round(fleet: Fleet, number: int, latest_s: float, dice: random.Random) -> Round:
    mark = f"round {number} {dice.random()}"
    killed_after_s = dice.uniform(0.0, latest_s)
    async with doomed(fleet.redis_url) as gateway, AsyncClient([gateway.url, fleet.url]) as client:
        streams = [Reader(n, mark) for n in range(BY_SDK + BY_HAND)]
        waiters = [Reader(n, mark) for n in range(BY_SDK + BY_HAND, BY_SDK + BY_HAND + WAITING)]
        began = time.monotonic()
        killing = asyncio.create_task(_kill(gateway, killed_after_s, streams))
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
    return Round(
        number, round(killed_after_s, 3), begun, cut, tokens, tuple(faults), round(time.monotonic() - began, 2)
    )


async def _kill(gateway: DoomedGateway, after_s: float, streams: list[Reader]) -> tuple[int, int]:
    await asyncio.sleep(after_s)
    gateway.kill()
    begun = [reader for reader in streams if any(isinstance(event, Delta) for event in reader.events)]
    return len(begun), sum(not reader.ended for reader in begun)


async def rounds(count: int, latest_s: float, seed: int) -> bool:
    """Whether all went well."""
    dice, well = random.Random(seed), True
    with tempfile.TemporaryDirectory(prefix="hr-") as folder, running(Path(folder), model="fake:speed=100") as fleet:
        for number in range(count):
            done = await one_round(fleet, number, latest_s, dice)
            well = well and not done.faults
            sys.stdout.write(json.dumps(asdict(done)) + "\n")
            sys.stdout.flush()
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--latest", type=float, default=2.0, help="most seconds before the kill")
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    return 0 if asyncio.run(rounds(flags.rounds, flags.latest, flags.seed)) else 1


if __name__ == "__main__":
    sys.exit(main())
