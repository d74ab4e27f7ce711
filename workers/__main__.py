"""`python -m workers`: one worker process. Reads the settings, starts the engine, then all that works around it.

Little is imported before the engine's process has started: a worker is ready when that one is, and while it imports
torch and loads the weights there is time for Celery and the rest.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.contract.errors import SetupError
from headrace.settings import Settings, load
from headrace.telemetry import logs
from workers.inference.messages import ChildOptions
from workers.inference.served_model import CANNOT_START, find_model
from workers.inference.spawning import spawn

SUBCOMMANDS: Mapping[str, str] = {
    "describe": "workers.describe",
    "feeder": "workers.feeder",
    "register": "workers.register",
}
"""First word of the command line → the module whose `main(arguments)` answers for the rest of it."""


def main(arguments: list[str] | None = None) -> int:
    """Run until asked to stop. 0 after a drain, 3 when it could not start."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in SUBCOMMANDS:
        return int(importlib.import_module(SUBCOMMANDS[arguments[0]]).main(arguments[1:]))
    try:
        settings = _settings(arguments)
        logs.configure(settings.log, role="worker")
        os.nice(settings.worker.nice)  # before there is an engine: its process takes this over
        first = spawn(ChildOptions(find_model(settings).source, settings.engine))
    except SetupError as error:
        sys.stderr.write(f"headrace worker: {error.explain()}\n")
        return CANNOT_START
    from workers.shell import run

    return run(settings, first)


def _settings(arguments: list[str]) -> Settings:
    parser = argparse.ArgumentParser(prog="python -m workers", description="One Headrace worker.")
    parser.add_argument("--model", help="a name from `headrace models list`, or file:<path>")
    parser.add_argument("--release", help="the release whose lane it serves (default: stable)")
    parser.add_argument("--redis-url", help="the fleet's Redis")
    parser.add_argument("--tag", help="last part of the worker's id, given by a supervisor")
    parser.add_argument("--config", type=Path, help="a YAML file of settings")
    given = parser.parse_args(arguments)
    worker = {name: getattr(given, name) for name in ("model", "release", "tag") if getattr(given, name) is not None}
    flags: dict[str, dict[str, Any]] = {"worker": worker} if worker else {}
    if given.redis_url is not None:
        flags["redis"] = {"url": given.redis_url}
    return load(flags, given.config)


if __name__ == "__main__":
    sys.exit(main())
