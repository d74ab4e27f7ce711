"""The engine's knobs and their limits; knows no environment and no files."""

from dataclasses import dataclass

from engine.errors import EngineConfigError


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """`num_pages` wins over `kv_budget_bytes`. `max_context` and `threads` None: what the file and torch say.

    `max_batched_tokens` is the token budget of one step: it bounds how long a step, and so a stream's pause, can be.
    `stuck_after_s`: without progress for that long a running request is reported by `health`.
    Raises EngineConfigError (`invalid_config`).
    """

    model: str
    device: str = "auto"
    numerics: str = "exact"
    page_size: int = 16
    kv_budget_bytes: int = 512 << 20
    num_pages: int | None = None
    max_num_seqs: int = 64
    max_batched_tokens: int = 256
    max_context: int | None = None
    threads: int | None = None
    stuck_after_s: float = 30.0

    def __post_init__(self) -> None:
        if self.page_size < 1 or self.page_size > 1024 or self.page_size & (self.page_size - 1):
            raise EngineConfigError(f"page_size must be a power of two from 1 to 1024, not {self.page_size}")
        for name in ("kv_budget_bytes", "max_num_seqs", "max_batched_tokens", "num_pages", "max_context", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EngineConfigError(f"{name} must be at least 1, not {value}")
        if not self.stuck_after_s > 0:
            raise EngineConfigError(f"stuck_after_s must be above 0, not {self.stuck_after_s}")

    def pages_for(self, kv_bytes_per_token: int) -> int:
        """How many pages the budget buys. Raises EngineConfigError when it buys none."""
        if self.num_pages is not None:
            return self.num_pages
        pages = self.kv_budget_bytes // (self.page_size * kv_bytes_per_token)
        if pages < 1:
            needed = self.page_size * kv_bytes_per_token
            raise EngineConfigError(f"kv_budget_bytes {self.kv_budget_bytes} is less than one page, {needed} bytes")
        return pages
