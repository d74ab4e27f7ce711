"""Starts an engine process: the spawn and its pipe. Knows nothing of what is said, and imports little.

A cold start waits for what stands here: the child imports this module first, and the parent starts the first child
before it imports Celery and the rest of itself.
"""

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from workers.inference.messages import ChildOptions


@dataclass(frozen=True, slots=True)
class EngineChild:
    """The parent's end of the pipe, and the process at the other end."""

    pipe: Connection
    process: SpawnProcess


def spawn(options: ChildOptions) -> EngineChild:
    """Start one, from a thread that lives as long as it is to live: on Linux the child dies with that thread."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=run_child, args=(there, options), name="headrace-engine", daemon=True)
    process.start()
    there.close()
    return EngineChild(here, process)


def run_child(pipe: Connection, options: ChildOptions) -> None:
    """The first function of the child. It alone imports the engine: the parent stays without torch."""
    from workers.inference.child import main

    main(pipe, options)
