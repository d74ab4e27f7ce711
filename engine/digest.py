"""The numerics digest: a name for everything that may change the bits of a token; knows names, versions and sources."""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np

_PACKAGES: Final = ("engine", "kernels")


def numerics_digest(revision: str, identity: Mapping[str, str]) -> str:
    """16 hex digits over the weights' revision, what the backend says of itself (policy, kernels, device kind, CPU
    instruction set, libraries), the version of numpy, which samples, and this software's own formulas."""
    parts = {**identity, "revision": revision, "numpy": np.__version__, "sources": _own_sources()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def _own_sources() -> str:
    """Whole packages: what a kernel of the same name computes, how weights are packed and how noise is drawn may all
    change from one version to the next, and then a job goes on with other tokens than it began with."""
    specs = [find_spec(name) for name in _PACKAGES]
    return sources_digest(Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None)


def sources_digest(folders: Iterable[Path]) -> str:
    """Over the names and contents of all Python files below each folder."""
    found = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            found.update(f"{folder.name}/{file.relative_to(folder).as_posix()}\0".encode())
            found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()
