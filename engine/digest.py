"""One string that names everything a token's bits may depend on; equal digests promise equal tokens."""

import hashlib
import json
import platform

import numpy as np
import torch

from engine.numerics import Numerics
from kernels.dispatch import table_names


def numerics_digest(revision: str, numerics: Numerics, device: torch.device) -> str:
    """Hash of revision, numerics policy, kernel table, device kind, CPU instruction set and library versions."""
    facts = {
        "revision": revision,
        "numerics": numerics.name,
        "road": numerics.road,
        "kernels": table_names(device.type),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "isa": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
