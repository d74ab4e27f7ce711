"""Kill one process of a fleet in the middle of sixteen streams, and compare with the run that was left alone.

python -m tests.chaos.kill --rounds 10          # ten of each kind on the real model, by hand
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from headrace import Client
from tests.chaos.streams import Run, Stream
from tests.e2e.fleet import Fleet, running, wait_until

TIMEOUT_S = 120.0


def kill_parent(fleet: Fleet) -> psutil.Process:
    """The parent that holds most jobs; its engine must go with it."""
    return fleet.workers()[fleet.holder()]


def kill_child(fleet: Fleet) -> psutil.Process:
    return fleet.engine_child(fleet.holder())


KINDS: Mapping[str, Callable[[Fleet], psutil.Process]] = {"parent": kill_parent, "child": kill_child}


@dataclass(frozen=True, slots=True)
class Round:
    """What one kill did. `differing` counts the token ids that are not those of the undisturbed run."""

    kind: str
    tokens: int
    resumed: int
    differing: int
    faults: tuple[str, ...]
    seconds: float


def undisturbed(fleet: Fleet, max_tokens: int) -> list[list[int]]:
    """The token ids of the sixteen streams when nobody is killed."""
    with Client(fleet.url) as client:
        streams = Run(client, fleet.model, max_tokens).wait(TIMEOUT_S)
    assert not [fault for stream in streams for fault in stream.faults()]
    assert all(not stream.resumes for stream in streams)
    return [stream.token_ids for stream in streams]


def disturbed(fleet: Fleet, kind: str, max_tokens: int, expected: Sequence[Sequence[int]]) -> Round:
    """One kill once every stream has eight tokens or has ended; the fleet is whole again afterwards."""
    workers = len(fleet.workers())
    began = time.monotonic()
    with Client(fleet.url) as client:
        run = Run(client, fleet.model, max_tokens)
        run.wait_until_all_have_begun(TIMEOUT_S)
        KINDS[kind](fleet).kill()
        streams = run.wait(TIMEOUT_S)
    seconds = time.monotonic() - began
    wait_until(lambda: len(fleet.workers()) >= workers, TIMEOUT_S, "the fleet to be whole")
    fleet.wait_for_workers(workers)
    return Round(
        kind=kind,
        tokens=sum(len(stream.token_ids) for stream in streams),
        resumed=sum(stream.resumes > 0 for stream in streams),
        differing=sum(_differing(stream, ids) for stream, ids in zip(streams, expected, strict=True)),
        faults=tuple(fault for stream in streams for fault in stream.faults()),
        seconds=seconds,
    )


def _differing(stream: Stream, expected: Sequence[int]) -> int:
    got = stream.token_ids
    return abs(len(got) - len(expected)) + sum(a != b for a, b in zip(got, expected, strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--max-tokens", type=int, default=128)
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="hr-") as folder,
        running(Path(folder), model=args.model, workers=2) as fleet,
    ):
        expected = undisturbed(fleet, args.max_tokens)
        for number in range(args.rounds):
            for kind in KINDS:
                done = disturbed(fleet, kind, args.max_tokens, expected)
                print(
                    json.dumps(
                        {
                            "round": number,
                            "kind": done.kind,
                            "tokens": done.tokens,
                            "streams_resumed": done.resumed,
                            "differing": done.differing,
                            "faults": done.faults,
                            "seconds": round(done.seconds, 2),
                        }
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
