"""The engine's knobs, checked once; knows numbers and names, no tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.bounds import need_number, need_whole, shown
from engine.errors import EngineConfigError

DEVICES: Final = ("auto", "cpu", "cuda")
BACKENDS: Final = ("auto", "torch", "cpu", "cuda")
NUMERICS: Final = ("exact", "reference")
_LARGEST: Final = 1 << 62
_MAY_BE_NONE: Final = ("num_pages", "kv_budget_bytes", "max_context", "threads")
# Each of them at least 1.
_MOST: Final = {
    "page_size": 1 << 20,
    "num_pages": _LARGEST,
    "kv_budget_bytes": _LARGEST,
    "max_num_seqs": _LARGEST,
    "max_batched_tokens": _LARGEST,
    "max_batched_keys": _LARGEST,
    "max_context": _LARGEST,
    "threads": 1024,
}
_LONGEST_STEP_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """`max_batched_tokens` bounds the rows of one step, and its time is to stay near `step_seconds`: what that allows
    is learned from the steps before. Where that is None, `max_batched_keys` bounds rows times the positions that they
    see instead. `max_context` None is the file's own. `prefix_cache` keeps full pages for requests that begin alike.

    Pages of the KV cache: `num_pages` where given, else as many as `kv_budget_bytes` hold, else as memory allows
    (engine/sizing.py has the formula). `threads` None leaves the backend its own choice.

    `backend` says who computes: "torch" is the portable one, "cpu" and "cuda" the fused ones, "auto" the best there is
    for the device. `cache_dir` is where packed weights and compiled code are kept between starts; None leaves the
    backend its own place. Raises EngineConfigError.
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
        if self.numerics not in NUMERICS:
            raise EngineConfigError(f"unknown numerics {self.numerics!r}; known are {', '.join(NUMERICS)}")
        if self.backend == "cpu" and self.device == "cuda":  # the other way round Triton's interpreter may compute
            raise EngineConfigError("backend 'cpu' does not run on device 'cuda'; leave one of them 'auto'")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value is not None or name not in _MAY_BE_NONE:
                need_whole(name, value, 1, most, EngineConfigError)
        if self.step_seconds is not None:
            need_number("step_seconds", self.step_seconds, 1e-9, _LONGEST_STEP_S, EngineConfigError)
        if not isinstance(self.model, str | Path):
            raise EngineConfigError(f"model must be a path, not {shown(self.model)}")
        if self.cache_dir is not None and not isinstance(self.cache_dir, Path):
            raise EngineConfigError(f"cache_dir must be a Path, not {shown(self.cache_dir)}")
        if "\0" in str(self.cache_dir):
            raise EngineConfigError(f"no file's name has a zero byte, as cache_dir has: {shown(self.cache_dir)}")
        if self.page_size & (self.page_size - 1):  # attention reads whole chunks of 64 keys, and so whole pages of them
            raise EngineConfigError(f"page_size must be a power of two, not {self.page_size}")
