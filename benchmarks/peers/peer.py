"""What the driver must know of an engine to measure it: name, environment, files, options. Knows no engine itself."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

from benchmarks.peers.environments import FOLDER, Environment, made
from benchmarks.peers.process import RunnerProcess

START_S: Final = 900.0

Say: TypeAlias = Callable[[str], None]
Files: TypeAlias = Callable[[Path, Say], Path]
"""From the GGUF to the path that the engine is given, made on first use. Raises PeerError."""

PEERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "openvino": "benchmarks.peers.openvino:GGUF",
        "openvino-int8": "benchmarks.peers.openvino:INT8",
        "llama.cpp": "benchmarks.peers.llama_cpp:PEER",
        "llama.cpp-q8_0": "benchmarks.peers.llama_cpp:Q8",
        "llama-batched-bench": "benchmarks.peers.llama_batched_bench:PEER",
        "vllm": "benchmarks.peers.vllm:PEER",
        "transformers-fp32": "benchmarks.peers.transformers:FLOAT32",
        "transformers-bf16": "benchmarks.peers.transformers:BFLOAT16",
        "transformers-continuous": "benchmarks.peers.transformers:CONTINUOUS",
        "reference": "benchmarks.peers.headrace:REFERENCE",
    }
)
"""By the name on the command line."""


def the_gguf(gguf: Path, say: Say) -> Path:
    """For an engine that reads the very file that we read."""
    return gguf


@dataclass(frozen=True, slots=True)
class Peer:
    """`module` has the runner. `workloads` None: all. `environment` None: this one."""

    name: str
    title: str
    module: str
    environment: Environment | None = None
    files: Files = the_gguf
    options: Mapping[str, object] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    workloads: frozenset[str] | None = None

    def runs(self, workload: str) -> bool:
        return self.workloads is None or workload in self.workloads


def find(name: str) -> Peer:
    """Raises KeyError for a name that is not in PEERS."""
    module, _, attribute = PEERS[name].partition(":")
    peer: Peer = getattr(import_module(module), attribute)
    return peer


def started(peer: Peer, python: Path, model: Path, threads: int) -> RunnerProcess:
    """A runner that has loaded its engine and sleeps. Raises PeerError."""
    options = {**peer.options, "model": str(model), "threads": threads}
    command = [str(python), "-m", peer.module, json.dumps(options)]
    environ = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", **peer.environ}
    return RunnerProcess(command, environ, FOLDER / "logs" / f"{peer.name}.log", START_S)


def interpreter(peer: Peer, ours: Path, say: Say) -> Path:
    """The interpreter to run it with, installed on first use. Raises PeerError."""
    return made(peer.environment, say) if peer.environment else ours
