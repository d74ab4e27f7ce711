"""The numerics digest: a name for everything that may change the bits of a token; knows names and versions only."""

import hashlib
import json

import numpy as np
import torch

from engine.numerics import Numerics
from kernels.dispatch import table_names


def numerics_digest(revision: str, numerics: Numerics, device: torch.device) -> str:
    """16 hex digits over revision, policy, kernels, device kind, CPU instruction set and library versions."""
    parts = {
        "revision": revision,
        "numerics": numerics.name,
        "road": numerics.road,
        "kernels": table_names(device.type),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
