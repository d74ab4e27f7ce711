"""The engine's knobs, checked once; knows numbers and names, no tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import EngineConfigError

DEVICES: Final = ("auto", "cpu", "cuda")
BACKENDS: Final = ("auto", "torch", "cpu", "cuda")
_AT_LEAST_ONE: Final = (
    "page_size",
    "num_pages",
    "kv_budget_bytes",
    "max_num_seqs",
    "max_batched_tokens",
    "max_batched_keys",
    "max_context",
    "threads",
)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """`max_batched_tokens` bounds the rows of one step, and its time is to stay near `step_seconds`: what that allows
    is learned from the steps before. Where that is None, `max_batched_keys` bounds rows times the positions that they
    see instead. `max_context` None is the file's own. `prefix_cache` keeps full pages for requests that begin alike.

    Pages of the KV cache: `num_pages` where given, else as many as `kv_budget_bytes` hold, else as memory allows
    (engine/sizing.py has the formula). `threads` None leaves the backend its own choice.

    `backend` says who computes: "torch" is the portable one, "cpu" and "cuda" the fused ones, "auto" the best there is
    for the device. `cache_dir` is where prepacked weights are kept between starts; None keeps none.
    Raises EngineConfigError.
    """

    model: str | Path
    device: str = "auto"
    numerics: str = "exact"
    page_size: int = 16
    num_pages: int | None = None
    kv_budget_bytes: int | None = None
    max_num_seqs: int = 64
    max_batched_tokens: int = 512
    max_batched_keys: int = 1 << 17
    step_seconds: float | None = 0.1
    max_context: int | None = None
    threads: int | None = None
    backend: str = "auto"
    cache_dir: Path | None = None
    prefix_cache: bool = True

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise EngineConfigError(f"unknown device {self.device!r}; known are {', '.join(DEVICES)}")
        if self.backend not in BACKENDS:
            raise EngineConfigError(f"unknown backend {self.backend!r}; known are {', '.join(BACKENDS)}")
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EngineConfigError(f"{name} must be at least 1, not {value}")
        if self.step_seconds is not None and not self.step_seconds > 0:
            raise EngineConfigError(f"step_seconds must be more than 0, not {self.step_seconds}")
        if self.page_size & (self.page_size - 1):  # attention reads whole chunks of 64 keys, and so whole pages of them
            raise EngineConfigError(f"page_size must be a power of two, not {self.page_size}")
