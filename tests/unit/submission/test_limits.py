"""Room for prompt and answer: every refusal states both numbers."""

from dataclasses import replace

import pytest

from headrace.contract.errors import ContextLengthExceeded, InvalidRequest
from headrace.contract.job import Kind
from headrace.contract.model_card import ModelCard
from headrace.submission.limits import refuse_hopeless, refuse_unknown_ids, settle_max_tokens
from tests.unit.submission.announced import CARD

WIDE = replace(CARD, context_length=1_000, max_kv_tokens=5_000)
NARROW = replace(CARD, context_length=5_000, max_kv_tokens=1_000)


@pytest.mark.parametrize("card", [WIDE, NARROW])
@pytest.mark.parametrize(
    ("kind", "prompt", "asked", "expected"),
    [
        (Kind.CHAT, 100, None, 900),
        (Kind.CHAT, 999, None, 1),
        (Kind.CHAT, 100, 900, 900),
        (Kind.CHAT, 100, 5, 5),
        (Kind.COMPLETION, 100, None, 16),
        (Kind.COMPLETION, 990, None, 10),
        (Kind.COMPLETION, 100, 900, 900),
    ],
)
def test_what_fits(card: ModelCard, kind: Kind, prompt: int, asked: int | None, expected: int) -> None:
    assert settle_max_tokens(card, kind, prompt, asked, source="messages") == expected


@pytest.mark.parametrize(
    ("prompt", "asked", "numbers"),
    [(1_000, None, ["1,000"]), (7_777, 1, ["1,000", "7,777"]), (999, 2, ["1,000", "999", "2", "1,001"])],
)
def test_what_does_not(prompt: int, asked: int | None, numbers: list[str]) -> None:
    for card in (WIDE, NARROW):
        with pytest.raises(ContextLengthExceeded) as caught:
            settle_max_tokens(card, Kind.CHAT, prompt, asked, source="messages")
        assert caught.value.param == "messages"
        assert all(number in caught.value.message for number in numbers)


def test_a_cache_smaller_than_the_context_is_named_as_the_reason() -> None:
    with pytest.raises(ContextLengthExceeded, match=r"1,000 tokens here.*context is 5,000.*cache"):
        settle_max_tokens(NARROW, Kind.CHAT, 2_000, None, source="messages")


def test_a_prompt_that_is_only_scored_may_fill_the_context() -> None:
    assert settle_max_tokens(WIDE, Kind.COMPLETION, 1_000, 0, source="prompt") == 0
    with pytest.raises(ContextLengthExceeded):
        settle_max_tokens(WIDE, Kind.COMPLETION, 1_001, 0, source="prompt")


def test_ids_outside_the_vocabulary() -> None:
    last = WIDE.vocab_size - 1
    refuse_unknown_ids(WIDE, (0, last), source="prompt")
    with pytest.raises(InvalidRequest, match=rf"{last + 1} is not in the vocabulary"):
        refuse_unknown_ids(WIDE, (0, last + 1, 0), source="prompt")


def test_a_prompt_of_no_tokens() -> None:
    with pytest.raises(InvalidRequest, match="no tokens"):
        settle_max_tokens(WIDE, Kind.COMPLETION, 0, None, source="prompt")


def test_hopeless() -> None:
    refuse_hopeless(WIDE, 10_000, 10, source="prompt")
    with pytest.raises(ContextLengthExceeded, match=r"1,000.*at least 1,001"):
        refuse_hopeless(WIDE, 10_001, 10, source="prompt")
