"""Finds stop strings in text that arrives in pieces. Knows characters only, not tokens."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.contract.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Scan:
    """`text` may be shown now; `stopped` says that a stop string ended here, which is not part of `text`."""

    text: str
    stopped: bool


class StopMatcher:
    """An Aho-Corasick automaton over the stop strings, fed character by character.

    The first stop string to be complete wins; of several complete at the same character, the longest. So the result is
    a function of the whole text and not of its pieces. What may be the start of a stop string is held back: the
    automaton's state is the longest such suffix. Constant time per character, however long the stop strings are.

    Raises InvalidRequest for an empty stop string.
    """

    __slots__ = ("_depth", "_fail", "_firsts", "_goto", "_held", "_node", "_stop_length")

    def __init__(self, stop: Sequence[str]) -> None:
        if not all(stop):
            raise InvalidRequest("A stop string may not be empty.", param="stop")
        self._goto: list[dict[str, int]] = [{}]
        self._fail = [0]
        self._depth = [0]
        self._stop_length = [0]  # of the longest stop string that ends at this node; 0 where none does
        self._firsts = frozenset(word[0] for word in stop)
        self._held = ""
        self._node = 0
        for word in stop:
            self._insert(word)
        self._link()

    def feed(self, text: str) -> Scan:
        """Take the next piece of text. Not to be called again after `stopped`."""
        if not self._node and self._firsts.isdisjoint(text):
            return Scan(text, stopped=False)
        buffer = self._held + text
        node = self._node
        for end, character in enumerate(text, len(self._held) + 1):
            node = self._next(node, character)
            if self._stop_length[node]:
                self._held, self._node = "", 0
                return Scan(buffer[: end - self._stop_length[node]], stopped=True)
        cut = len(buffer) - self._depth[node]
        self._held, self._node = buffer[cut:], node
        return Scan(buffer[:cut], stopped=False)

    def release(self) -> str:
        """The text held back, once nothing can follow it any more."""
        held, self._held, self._node = self._held, "", 0
        return held

    def _insert(self, word: str) -> None:
        node = 0
        for character in word:
            child = self._goto[node].get(character)
            if child is None:
                child = len(self._goto)
                self._goto[node][character] = child
                self._goto.append({})
                self._fail.append(0)
                self._depth.append(self._depth[node] + 1)
                self._stop_length.append(0)
            node = child
        self._stop_length[node] = len(word)

    def _link(self) -> None:
        """Breadth first, so that the shorter suffix a node falls back to is complete before it."""
        pending = deque(self._goto[0].values())
        while pending:
            node = pending.popleft()
            for character, child in self._goto[node].items():
                self._fail[child] = self._next(self._fail[node], character)
                pending.append(child)
            if not self._stop_length[node]:
                self._stop_length[node] = self._stop_length[self._fail[node]]

    def _next(self, node: int, character: str) -> int:
        while node and character not in self._goto[node]:
            node = self._fail[node]
        return self._goto[node].get(character, 0)
