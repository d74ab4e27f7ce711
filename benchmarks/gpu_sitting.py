"""One run on one device, and the file of what was found there; measures nothing itself.

Everything is written down as soon as it is known, beside what earlier sittings on the same device found.
"""

import gc
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks import results
from benchmarks.machine import commit, today
from benchmarks.results import say
from tests.unit.engine.cuda_backend.random_models import LLAMA_8B, QWEN_06B, TINY, Subject

_BROKEN_CONTEXT: Final = 3
_REQUESTS: Final = (256, 100, 1024)
_TINY_REQUESTS: Final = (2, 2, 3)


@dataclass(slots=True)
class Sitting:
    """One run on one device, and the file of what was found."""

    device: torch.device
    tiny: bool
    path: Path | None
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def subjects(self) -> tuple[Subject, ...]:
        return (TINY,) if self.tiny else (QWEN_06B, LLAMA_8B)

    @property
    def requests(self) -> tuple[int, int, int]:
        """How many, and the least and most tokens of each, in and out."""
        return _TINY_REQUESTS if self.tiny else _REQUESTS

    def keep(self, part: str, name: str, value: Mapping[str, Any]) -> None:
        self.found.setdefault("parts", {}).setdefault(part, {})[name] = {**value, "commit": commit(), "date": today()}
        say(f"{part}: {name}: {json.dumps(value)[:300]}")
        if self.path is not None:
            results.write(self.path, self.found)

    def attempt(self, part: str, name: str, measure: Callable[[], Mapping[str, Any]]) -> None:
        """Keeps what was measured, or why it was not."""
        try:
            value = measure()
        except Exception as failure:  # noqa: BLE001 - is written down in its place, and the next measure is tried
            value = {"error": f"{type(failure).__name__}: {failure}"[:500]}
        self.keep(part, name, value)
        gc.collect()  # a runner and its host's part know each other
        if self.device.type == "cuda":
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except RuntimeError as failure:
                say(f"the device's context is broken: {failure}")
                sys.exit(_BROKEN_CONTEXT)
