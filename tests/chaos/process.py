"""The real process of a role, built as its own `__main__` builds it, that dies at a named point of its work.

python -m tests.chaos.process --point append.after --nth 7 -- workers      # settings come from the environment

Knows how a role is put together, not when it is to die. Little is imported before it is known which role is played.
"""

import argparse
import asyncio
import multiprocessing
import os
import sys
import tempfile
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos.doom import Doom, Sentence

if TYPE_CHECKING:
    from workers.inference.messages import ChildOptions
    from workers.inference.spawning import EngineChild


def engine_sentence(sentence: Path) -> Path:
    """A worker and its engine are sentenced apart: one may have to die of the other's death."""
    return sentence.with_name(f"{sentence.name}-engine")


def workers(sentence: Path) -> int:
    """As `python -m workers`."""
    from headrace.settings import load
    from headrace.telemetry import logs
    from tests.chaos.doomed_queue import open_doomed
    from workers.inference.messages import ChildOptions
    from workers.inference.served_model import find_model

    settings = load()
    logs.configure(settings.log, role="worker")
    first = spawn_doomed(engine_sentence(sentence), ChildOptions(find_model(settings).source, settings.engine))
    from workers.shell import run

    return run(settings, first, partial(open_doomed, Doom(sentence)))


def gateway(sentence: Path) -> int:
    """As `python -m gateway`."""
    import uvloop

    from headrace.settings import load
    from headrace.telemetry import logs

    settings = load()
    logs.configure(settings.log, role="gateway")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, Doom(sentence)))
    return 0


async def _serve(settings: Any, doom: Doom) -> None:
    from dataclasses import replace

    from gateway.app import build_app
    from gateway.server import Server, bind
    from gateway.services import open_services
    from tests.chaos.doomed_queue import open_doomed_async
    from tests.chaos.doomed_relay import DoomedRelay

    listener = bind(settings.gateway.host, settings.gateway.port)
    closing = asyncio.Event()
    async with open_services(settings, closing, open_queue=partial(open_doomed_async, doom)) as services:
        relay: Any = DoomedRelay(services.relay, doom)
        await Server(build_app(replace(services, relay=relay)), closing).serve([listener])


def spawn_doomed(sentence: Path, options: "ChildOptions") -> "EngineChild":
    """A worker's first engine. The fake one is forked: it has no torch to be afraid for, and is there at once. This
    is called before the worker has any other thread."""
    from workers.inference.fake_engine import SCHEME
    from workers.inference.spawning import EngineChild

    fake = options.model_path.startswith(SCHEME)
    context: Any = multiprocessing.get_context("fork" if fake else "spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=_child, args=(there, options, sentence, here if fake else None), name="headrace-engine", daemon=True
    )
    process.start()
    there.close()
    return EngineChild(here, process)


def _child(pipe: Connection, options: "ChildOptions", sentence: Path, inherited: Connection | None) -> None:
    """The whole life of an engine's process. A forked one lets go of its parent's end of the pipe."""
    from tests.chaos.doomed_engine import load_doomed
    from workers.inference.child import main

    if inherited is not None:
        inherited.close()
    main(pipe, options, partial(load_doomed, Doom(sentence)))


ROLES = {"workers": workers, "gateway": gateway}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--point", required=True, help="where to die, as python -m tests.chaos.points --list says")
    parser.add_argument("--nth", type=int, default=1, help="at which of these moments")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hr-"))
    sentence = folder / "sentence"
    for file in (sentence, engine_sentence(sentence)):
        Sentence(os.getpid(), given.point, given.nth).write(file)
    return ROLES[given.role](sentence)


if __name__ == "__main__":
    sys.exit(main())
