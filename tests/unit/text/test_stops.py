"""The stop matcher against the plain way: look at every prefix of the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contract.errors import InvalidRequest
from headrace.text.stops import StopMatcher

STOPS = st.lists(st.text("ab\n", min_size=1, max_size=5), min_size=1, max_size=4)


def plainly(text: str, stop: list[str]) -> str | None:
    """The text before the stop string that is complete first, the longest of several; None where there is none."""
    for end in range(1, len(text) + 1):
        ending = [word for word in stop if text[:end].endswith(word)]
        if ending:
            return text[: end - max(map(len, ending))]
    return None


def fed(pieces: list[str], stop: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stop)
    shown = ""
    for piece in pieces:
        scan = matcher.feed(piece)
        shown += scan.text
        if scan.stopped:
            return shown, True
    return shown + matcher.release(), False


@given(st.lists(st.text("abc\n", max_size=6), max_size=8), STOPS)
def test_agrees_with_looking_at_every_prefix(pieces: list[str], stop: list[str]) -> None:
    text = "".join(pieces)
    expected = plainly(text, stop)
    assert fed(pieces, stop) == ((text, False) if expected is None else (expected, True))


@given(st.lists(st.text("abc\n", max_size=6), max_size=8), STOPS)
def test_shows_all_that_cannot_become_a_stop_string(pieces: list[str], stop: list[str]) -> None:
    matcher = StopMatcher(stop)
    text = shown = ""
    for piece in pieces:
        scan = matcher.feed(piece)
        if scan.stopped:
            return
        text += piece
        shown += scan.text
        held = [text[i:] for i in range(len(text)) if any(w.startswith(text[i:]) for w in stop)]
        assert shown == text.removesuffix(held[0] if held else "")


@pytest.mark.parametrize(
    ("stop", "text", "expected"),
    [
        (["ab", "abc"], "xabcd", "x"),  # a prefix of another wins, being complete first
        (["bc", "abc"], "xabcd", "x"),  # both complete at once: the longest
        (["aab"], "aaab", "a"),  # overlap with itself
        (["###", "\n\n"], "a##\n#\n\nb", "a##\n#"),
        (["日本"], "今日日本語", "今日"),
    ],
)
def test_which_stop_wins(stop: list[str], text: str, expected: str) -> None:
    assert fed([text], stop) == fed(list(text), stop) == (expected, True)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty") as caught:
        StopMatcher(["a", ""])
    assert caught.value.param == "stop"
