"""Two runs held against each other: what is the same, where they part, and how far that can be said."""

from dataclasses import replace

import pytest

from headrace.client.comparison import Comparison, Difference, Said, What, compare, from_events, from_result
from headrace.contract.errors import HeadraceError
from headrace.contract.events import Accepted, Completed, Delta, Event
from headrace.contract.generation import TokenLogprobs, Usage

WHOLE = Said((5, 6, 7), "the old mill", "stop", (-0.5, -0.25, -1.0))


def compared(first: Said, second: Said) -> Comparison:
    return compare([first], [second])


def place(first: Said, second: Said) -> tuple[What, int, object, object]:
    found = compared(first, second).difference
    assert found is not None
    return found.what, found.offset, found.first, found.second


def test_the_same() -> None:
    assert compared(WHOLE, WHOLE) == Comparison(3)
    without_scores = replace(WHOLE, logprobs=())
    assert compared(WHOLE, without_scores) == compared(without_scores, WHOLE) == Comparison(3)


def test_the_first_token_that_differs_with_the_text_around_it() -> None:
    other = Said((5, 9, 7), "the one mill", "stop", (-0.5, -9.0, -1.0))
    expected = Difference(0, 1, What.TOKEN, 6, 9, "the o", "ld mill", "ne mill")
    assert compared(WHOLE, other) == Comparison(3, expected)


def test_a_long_text_is_shown_around_the_place_alone() -> None:
    first, second = (Said((1, i), "x" * 1000 + letter + "y" * 1000, "stop") for i, letter in enumerate("ab"))
    found = compared(first, second).difference
    assert found is not None
    assert (len(found.shared), len(found.first_text), found.second_text[0]) == (40, 40, "b")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"token_ids": (5, 6), "finish_reason": "length"}, (What.LENGTH, 2, 7, None)),
        ({"token_ids": (5, 6, 7, 8)}, (What.LENGTH, 3, None, 8)),
        ({"finish_reason": "length"}, (What.FINISH_REASON, 3, "stop", "length")),
        ({"logprobs": (-0.5, -0.125, -1.0)}, (What.LOGPROB, 1, -0.25, -0.125)),
        ({"logprobs": (-0.5, -0.25, -2.0), "token_ids": (5, 9, 7)}, (What.TOKEN, 1, 6, 9)),
        ({"logprobs": (-0.75, -0.25, -1.0), "token_ids": (5, 9, 7)}, (What.LOGPROB, 0, -0.5, -0.75)),
    ],
)
def test_what_else_differs(fields: dict[str, object], expected: tuple[What, int, object, object]) -> None:
    assert place(WHOLE, replace(WHOLE, **fields)) == expected  # type: ignore[arg-type]


def test_the_scores_of_a_prompt_come_first() -> None:
    first = replace(WHOLE, prompt_logprobs=(None, -1.0, -2.0))
    second = replace(WHOLE, token_ids=(4, 6, 7), prompt_logprobs=(None, -1.0, -3.0))
    assert place(first, second) == (What.PROMPT_LOGPROB, 2, -2.0, -3.0)


def test_of_a_run_that_did_not_end_what_there_is() -> None:
    cut = Said((5, 6), "the old", None)
    assert compared(cut, WHOLE) == Comparison(2, partial=True)
    assert place(cut, replace(WHOLE, token_ids=(5, 9, 7))) == (What.TOKEN, 1, 6, 9)
    assert place(cut, Said((5,), "the", "stop")) == (What.LENGTH, 1, 6, None)


def test_a_second_run_that_did_not_get_as_far() -> None:
    for cut in (Said((5, 6), "the old"), replace(WHOLE, finish_reason=None)):
        assert compared(WHOLE, cut) == Comparison(len(cut.token_ids), short=True)
    assert compared(Said((5, 6, 7)), Said((5, 6))) == Comparison(2, partial=True, short=True)
    assert compared(Said((5, 6)), Said((5, 6))) == Comparison(2, partial=True)


def test_each_choice_is_compared() -> None:
    found = compare([WHOLE, WHOLE], [WHOLE, replace(WHOLE, finish_reason="length")]).difference
    assert found is not None
    assert (found.choice, found.what) == (1, What.FINISH_REASON)
    assert compare([WHOLE, WHOLE], [WHOLE]) == Comparison(3, short=True)


def test_runs_are_read_from_events() -> None:
    events: list[Event] = [
        Accepted(1, "job_x", 0),
        Delta(2, 0, 0, (5, 6), "the old", None, (TokenLogprobs(-0.5), TokenLogprobs(-0.25)), (None, TokenLogprobs(-2))),
        Delta(3, 1, 0, (8,), "a", "length"),
        Delta(4, 0, 2, (7,), " mill", "stop", (TokenLogprobs(-1.0),)),
        Completed(5, Usage(2, 4)),
    ]
    first, second = from_events(events)
    assert first == replace(WHOLE, prompt_logprobs=(None, -2.0))
    assert second == Said((8,), "a", "length")
    assert from_events(events[:1]) == (Said(),)


def test_runs_are_read_from_results_of_either_kind() -> None:
    scores = {"content": [{"token": "t", "logprob": score, "top_logprobs": []} for score in WHOLE.logprobs]}
    chat = {"message": {"content": WHOLE.text}, "finish_reason": "stop", "token_ids": [5, 6, 7], "logprobs": scores}
    assert from_result([chat]) == (WHOLE,)
    columns = {"tokens": [], "token_logprobs": [None, -2.0, *WHOLE.logprobs]}
    scored = {"text": WHOLE.text, "finish_reason": "stop", "token_ids": [5, 6, 7], "logprobs": columns}
    assert from_result([scored]) == (replace(WHOLE, prompt_logprobs=(None, -2.0)),)
    assert from_result([scored | {"logprobs": None}]) == (replace(WHOLE, logprobs=()),)
    with pytest.raises(HeadraceError, match="token_ids"):
        from_result([{"text": "", "finish_reason": "stop"}])
