"""The long form: `python -m tests.stateful --examples 2000`, and `--seed N` for one round that went wrong, again."""

import argparse
import secrets
import sys
import time

from tests.redis_server import running_redis
from tests.stateful.running import accidents, both_queues

MACHINES = {"both": both_queues, "accidents": accidents}
ROUND = 50
"""Examples of one seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=500, help="of each machine")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, help="one round with this seed, and no other")
    parser.add_argument("--machine", choices=MACHINES, help="only this one")
    args = parser.parse_args()
    seeds = [secrets.randbelow(2**31) for _ in range(-(-args.examples // ROUND))] if args.seed is None else [args.seed]
    for name in [args.machine] if args.machine else MACHINES:
        with running_redis(fsync="always" if name == "accidents" else "everysec") as server:
            for seed in seeds:
                began = time.monotonic()
                sys.stdout.write(f"--machine {name} --seed {seed} --steps {args.steps} ... ")
                sys.stdout.flush()
                MACHINES[name](server, examples=min(ROUND, args.examples), steps=args.steps, with_seed=seed)
                sys.stdout.write(f"{time.monotonic() - began:.1f} s\n")


if __name__ == "__main__":
    main()
