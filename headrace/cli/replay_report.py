"""What came of a replay, for people and for programs. Knows two ended jobs and what differs, no gateway."""

from dataclasses import asdict, dataclass
from typing import Any

from headrace.client import JobView
from headrace.client.comparison import Comparison, Difference, What

SAME, DIFFERS, INCOMPARABLE = 0, 1, 3
"""Exit codes; 2 is wrong usage."""
NAMES = {SAME: "same", DIFFERS: "differs", INCOMPARABLE: "incomparable"}


@dataclass(frozen=True, slots=True)
class Report:
    """`first` and `second` are the jobs as they ended. A `reason` says why nothing, or not all, could be compared."""

    first: JobView
    second: JobView
    compared: Comparison | None = None
    reason: str = ""

    @property
    def code(self) -> int:
        if self.compared is not None and self.compared.difference is not None:
            return DIFFERS
        return INCOMPARABLE if self.compared is None or self.reason else SAME

    @property
    def exact(self) -> bool:
        """Whether both ran under one digest from beginning to end, so that they must be the same."""
        here, there = _digests(self.first), _digests(self.second)
        return len(here) == 1 and here == there

    def to_json(self) -> dict[str, Any]:
        compared = self.compared
        return {
            "verdict": NAMES[self.code],
            "job": self.first.id,
            "replay": self.second.id,
            "exact": self.exact,
            "digests": {"job": _digests(self.first), "replay": _digests(self.second)},
            "tokens": compared.tokens if compared else 0,
            "partial": compared.partial if compared else False,
            "difference": asdict(compared.difference) if compared and compared.difference else None,
            "reason": self.reason or None,
        }

    def lines(self) -> list[str]:
        """The verdict, and the first difference with the text around it."""
        if self.compared is None:
            return [f"{NAMES[self.code]}: {self.reason}"]
        head = f"{self.first.id} and its replay {self.second.id}, {_count(self.compared.tokens)} compared"
        found = self.compared.difference
        return [f"{NAMES[self.code]}: {head}", *([_where(found), *_texts(found)] if found else [])]

    def notes(self) -> list[str]:
        """What to know of this verdict."""
        compared = self.compared
        if compared is None:
            return []
        notes = [self.reason] if self.reason else []
        if compared.partial:
            state = self.first.state.value.lower()
            notes.append(f"{self.first.id} ended as {state}: what it had said until then was compared.")
        if len(_digests(self.first)) > 1:
            several = ", ".join(_digests(self.first))
            notes.append(f"{self.first.id} ran under several digests ({several}): where it was resumed it may differ.")
        elif not self.exact:
            here, there = ", ".join(_digests(self.first)), ", ".join(_digests(self.second))
            notes.append(f"Not exact: the first ran under the digest {here or 'unknown'}, the replay under {there}.")
        return notes


def _where(found: Difference) -> str:
    match found.what:
        case What.LENGTH:
            ended, other = ("the first", "the replay") if found.first is None else ("the replay", "the first")
            what = f"{ended} ended after {_count(found.offset)}, {other} went on"
        case What.FINISH_REASON:
            what = f"finish reason {found.first} at first, {found.second} now"
        case _:
            what = f"{found.what.value.replace('_', ' ')} {found.offset}: {found.first} at first, {found.second} now"
    return f"choice {found.choice}, {what}"


def _texts(found: Difference) -> list[str]:
    """One run above the other; a bar where they part."""
    rests = {"at first": found.first_text, "now": found.second_text}
    if found.first_text == found.second_text:
        rests = {"both": found.first_text}
    return [f"  {name:<8}  …{found.shared}|{rest}".replace("\n", "⏎") for name, rest in rests.items()]


def _digests(view: JobView) -> list[str]:
    return list(view.raw.get("digests") or ())


def _count(tokens: int) -> str:
    return f"{tokens:,} token{'s' * (tokens != 1)}"
