"""Runs the same launches again and again: as a captured graph, or one by one; knows nothing of what they do."""

from collections.abc import Callable, Hashable
from typing import Protocol

import torch


class Launcher(Protocol):
    """`work` launches kernels over fixed buffers and does nothing else; the same key is always the same work."""

    def launch(self, key: Hashable, work: Callable[[], None]) -> None: ...


class EagerLauncher:
    """Launch by launch: for devices without graphs, and the twin that graphs are compared with."""

    def launch(self, key: Hashable, work: Callable[[], None]) -> None:
        work()


class GraphLauncher:
    """The first time a key's work runs as it is, which compiles its kernels, and is then captured; from then on its
    graph is replayed. Capturing runs nothing, so each call works exactly once."""

    def __init__(self) -> None:
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def launch(self, key: Hashable, work: Callable[[], None]) -> None:
        found = self._graphs.get(key)
        if found is not None:
            found.replay()
            return
        work()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):  # other threads go on
            work()
        self._graphs[key] = graph


def launcher_for(device: torch.device) -> Launcher:
    return GraphLauncher() if device.type == "cuda" else EagerLauncher()
