"""The numerics digest: a name for everything that may change the bits of a token; knows names and versions only."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np


def numerics_digest(revision: str, identity: Mapping[str, str]) -> str:
    """16 hex digits over the weights' revision, what the backend says of itself (policy, kernels, device kind, CPU
    instruction set, libraries), and the version of numpy, which samples."""
    parts = {**identity, "revision": revision, "numpy": np.__version__}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
