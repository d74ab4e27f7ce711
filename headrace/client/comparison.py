"""Two runs of one request held against each other, token by token. Pure: knows what was said, not who asked or when.

A run is read from its events, which have everything, or from its result, which is kept longer.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Any

from headrace.contract.errors import HeadraceError
from headrace.contract.events import Delta, Event

_AROUND = 40
"""Characters shown in front of a difference and behind it."""


@dataclass(frozen=True, slots=True)
class Said:
    """What one choice said. `logprobs` has one number for each token, or is empty; so has `prompt_logprobs` for each of
    the prompt, None for the first."""

    token_ids: tuple[int, ...] = ()
    text: str = ""
    finish_reason: str | None = None
    logprobs: tuple[float, ...] = ()
    prompt_logprobs: tuple[float | None, ...] = ()


class What(StrEnum):
    """What of a token, or behind the last one, is not the same."""

    TOKEN = "token"
    LENGTH = "length"
    """One run ended where the other went on."""
    FINISH_REASON = "finish_reason"
    LOGPROB = "logprob"
    PROMPT_LOGPROB = "prompt_logprob"
    """`offset` then counts from the start of the prompt."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where two runs differ. `first` and `second` are what each has there: a token id, a finish reason
    or a number; None where it had ended. `shared` is the text in front of the place where the texts part."""

    choice: int
    offset: int
    what: What
    first: int | float | str | None
    second: int | float | str | None
    shared: str = ""
    first_text: str = ""
    second_text: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`tokens` were compared, over all choices. `partial`: the first run did not come to its end, and nothing can be
    said of what is behind. `short`: the second one ended before it got as far as the first, without a difference."""

    tokens: int
    difference: Difference | None = None
    partial: bool = False
    short: bool = False


def from_events(events: Iterable[Event]) -> tuple[Said, ...]:
    """Each choice as the deltas of a job have it, from offset 0 on."""
    by_choice: dict[int, list[Delta]] = {0: []}
    for event in events:
        if isinstance(event, Delta):
            by_choice.setdefault(event.choice, []).append(event)
    return tuple(_joined(by_choice.get(choice, [])) for choice in range(max(by_choice) + 1))


def from_result(choices: Iterable[Mapping[str, Any]]) -> tuple[Said, ...]:
    """Each choice as the `result` of a job object has it. Raises HeadraceError for one without ids, as older gateways
    show it."""
    try:
        return tuple(_from_choice(choice) for choice in choices)
    except KeyError as error:
        raise HeadraceError(f"The gateway's result has no {error}.", next_step="Update the gateway.") from None


def compare(first: Sequence[Said], second: Sequence[Said]) -> Comparison:
    """Hold the second run against the first, as far as the first went."""
    pairs = list(zip_longest(first, second, fillvalue=Said()))
    found = (_difference(choice, a, b) for choice, (a, b) in enumerate(pairs))
    return Comparison(
        tokens=sum(min(len(a.token_ids), len(b.token_ids)) for a, b in pairs),
        difference=next((each for each in found if each is not None), None),
        partial=any(a.finish_reason is None for a, _ in pairs),
        short=any(_short(a, b) for a, b in pairs),
    )


def _short(a: Said, b: Said) -> bool:
    return b.finish_reason is None and (len(b.token_ids) < len(a.token_ids) or a.finish_reason is not None)


def _difference(choice: int, a: Said, b: Said) -> Difference | None:
    found = next(_differences(a, b), None)
    if found is None:
        return None
    what, offset, first, second = found
    parting = next((i for i, (x, y) in enumerate(zip(a.text, b.text, strict=False)) if x != y), None)
    at = min(len(a.text), len(b.text)) if parting is None else parting
    shared, *rests = a.text[max(0, at - _AROUND) : at], a.text[at : at + _AROUND], b.text[at : at + _AROUND]
    return Difference(choice, offset, what, first, second, shared, *rests)


def _differences(a: Said, b: Said) -> Iterator[tuple[What, int, Any, Any]]:
    """What differs, in the order of the prompt's and then the answer's tokens; of one token the id before the rest."""
    for offset, (x, y) in enumerate(zip(a.prompt_logprobs, b.prompt_logprobs, strict=False)):
        if x != y:
            yield What.PROMPT_LOGPROB, offset, x, y
    scores = list(zip(a.logprobs, b.logprobs, strict=False))
    for offset, (token, other) in enumerate(zip(a.token_ids, b.token_ids, strict=False)):
        if token != other:
            yield What.TOKEN, offset, token, other
        elif offset < len(scores) and scores[offset][0] != scores[offset][1]:
            yield What.LOGPROB, offset, *scores[offset]
    here, there = len(a.token_ids), len(b.token_ids)
    if here < there and a.finish_reason is not None:
        yield What.LENGTH, here, None, b.token_ids[here]
    elif there < here and b.finish_reason is not None:
        yield What.LENGTH, there, a.token_ids[there], None
    elif None not in (a.finish_reason, b.finish_reason) and a.finish_reason != b.finish_reason:
        yield What.FINISH_REASON, here, a.finish_reason, b.finish_reason


def _joined(deltas: Sequence[Delta]) -> Said:
    return Said(
        token_ids=tuple(token for delta in deltas for token in delta.token_ids),
        text="".join(delta.text for delta in deltas),
        finish_reason=next((delta.finish_reason for delta in reversed(deltas) if delta.finish_reason), None),
        logprobs=tuple(score.logprob for delta in deltas for score in delta.logprobs),
        prompt_logprobs=tuple(
            None if score is None else score.logprob for delta in deltas for score in delta.prompt_logprobs
        ),
    )


def _from_choice(choice: Mapping[str, Any]) -> Said:
    ids = tuple(choice["token_ids"])
    scores = _logprobs(choice.get("logprobs") or {})
    at = max(0, len(scores) - len(ids))  # with `echo` those of the prompt come first
    return Said(
        token_ids=ids,
        text=choice["message"]["content"] if "message" in choice else choice["text"],
        finish_reason=choice["finish_reason"],
        logprobs=tuple(score for score in scores[at:] if score is not None),
        prompt_logprobs=scores[:at],
    )


def _logprobs(shown: Mapping[str, Any]) -> tuple[float | None, ...]:
    """From either of OpenAI's shapes: that of chats is a list of tokens, that of completions has lists of columns."""
    if "content" in shown:
        return tuple(token["logprob"] for token in shown["content"] or ())
    return tuple(shown.get("token_logprobs") or ())
