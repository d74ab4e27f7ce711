"""What the things that die have in common: what they do not name is passed on as it is. Knows no moment."""

from typing import Any

from tests.chaos.doom import Doom


class Doomed:
    """Something real, and the doom of the process that it works in."""

    def __init__(self, real: Any, doom: Doom) -> None:
        self._real = real
        self._doom = doom

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
