"""One choice from the engine's ids to the journal's deltas."""

import pytest

from headrace.contract.events import Delta
from headrace.contract.generation import TokenLogprobs
from headrace.text.detokenizer import TextStream
from headrace.text.tokenizer import Tokenizer
from workers.inference.fake_engine import byte_tokenizer
from workers.inference.transcript import Transcript

TOKENIZER = Tokenizer(byte_tokenizer())


def transcript(*stop: str, journaled: str = "") -> Transcript:
    return Transcript(0, lambda: TextStream(TOKENIZER, stop), tuple(journaled.encode()))


def push(choice: Transcript, text: str, finish: str | None = None, now: float = 0.0) -> bool:
    return choice.push(len(choice.ids), tuple(text.encode()), finish, now)


def taken(choice: Transcript) -> Delta:
    """The next delta, as the journal takes it."""
    delta = choice.delta()
    assert delta is not None
    choice.journaled(delta)
    return delta


def test_tokens_gather_until_they_are_taken() -> None:
    choice = transcript()
    assert choice.delta() is None
    push(choice, "ab", now=3.0)
    push(choice, "c", now=4.0)
    assert (choice.pending, choice.since) == (3, 3.0)
    assert taken(choice) == Delta(0, 0, 0, tuple(b"abc"), "abc")
    assert choice.delta() is None
    push(choice, "d", "length")
    assert taken(choice) == Delta(0, 0, 3, tuple(b"d"), "d", "length")
    assert choice.closed


def test_a_write_of_unknown_fate_is_said_again_and_more() -> None:
    choice = transcript()
    push(choice, "ab")
    choice.delta()
    push(choice, "c")
    assert choice.delta() == Delta(0, 0, 0, tuple(b"abc"), "abc")


def test_a_stop_string_cuts_ids_and_text_and_stops_the_engine() -> None:
    choice = transcript("END")
    assert not push(choice, "some E")
    assert taken(choice).text == "some "
    assert push(choice, "NDless")
    assert taken(choice) == Delta(0, 0, 6, tuple(b"ND"), "", "stop")
    assert not push(choice, "more")
    assert choice.delta() is None


def test_what_was_held_back_comes_at_the_end() -> None:
    choice = transcript("END")
    push(choice, "a EN", "length")
    assert taken(choice).text == "a EN"


def test_a_resumed_choice_finds_a_stop_string_across_the_border() -> None:
    choice = transcript("END", journaled="some E")
    assert push(choice, "ND")
    assert taken(choice) == Delta(0, 0, 6, tuple(b"ND"), "", "stop")


@pytest.mark.parametrize("have", [0, 1, 2, 3, 5])
def test_a_rewind_says_the_same_text_again(have: int) -> None:
    choice = transcript()
    push(choice, "aéb")
    first = taken(choice)
    push(choice, "c", "length")
    assert first.text + taken(choice).text == "aébc"
    choice.rewind(have)
    delta = taken(choice)
    assert (delta.offset, delta.token_ids, delta.finish_reason) == (have, tuple("aébc".encode())[have:], "length")
    # What a reader derives from the ids below `have`, and this, is the whole text.
    before = TextStream(TOKENIZER).push(list("aébc".encode())[:have]).text
    assert before + delta.text == "aébc"


def entries(text: str) -> tuple[TokenLogprobs, ...]:
    """One for each byte, all different."""
    return tuple(TokenLogprobs(-byte / 8, ((byte, -byte / 8),)) for byte in text.encode())


PROMPT = (None, TokenLogprobs(-0.5))


def explained(choice: Transcript, text: str, finish: str | None = None, offset: int | None = None) -> bool:
    """As the engine does where log probabilities are wanted: the prompt's with offset 0."""
    at = len(choice.ids) if offset is None else offset
    return choice.push(at, tuple(text.encode()), finish, 0.0, entries(text), () if at else PROMPT)


def test_log_probabilities_go_with_their_ids_and_the_prompts_with_the_first() -> None:
    choice = transcript()
    explained(choice, "ab")
    explained(choice, "c")
    delta = taken(choice)
    assert (delta.logprobs, delta.prompt_logprobs) == (entries("abc"), PROMPT)
    explained(choice, "cd", "length", offset=2)
    delta = taken(choice)
    assert (delta.offset, delta.logprobs, delta.prompt_logprobs) == (3, entries("d"), ())
    assert tuple(choice.logprobs) == entries("abcd")


def test_a_stop_string_cuts_log_probabilities_too() -> None:
    choice = transcript("END")
    assert explained(choice, "an ENDless")
    assert taken(choice).logprobs == entries("an END")
    assert tuple(choice.logprobs) == entries("an END")


@pytest.mark.parametrize("have", [0, 1, 2, 4])
def test_a_rewind_says_their_log_probabilities_again(have: int) -> None:
    choice = Transcript(0, lambda: TextStream(TOKENIZER, ()), tuple(b"ab"), entries("ab"), PROMPT)
    explained(choice, "cd", "length")
    taken(choice)
    choice.rewind(have)
    delta = taken(choice)
    assert (delta.token_ids, delta.logprobs) == (tuple(b"abcd"[have:]), entries("abcd"[have:]))
    assert delta.prompt_logprobs == (() if have else PROMPT)


def test_a_prompt_alone_is_a_delta_without_ids() -> None:
    choice = transcript()
    choice.push(0, (), "length", 0.0, (), PROMPT)
    assert taken(choice) == Delta(0, 0, 0, (), "", "length", (), PROMPT)
    assert choice.closed


def test_a_rewind_beyond_what_is_known_is_a_fault() -> None:
    with pytest.raises(ValueError, match="only 0 are known"):
        transcript().rewind(1)


def test_ids_that_come_again_fall_away_and_a_hole_is_a_fault() -> None:
    choice = transcript(journaled="abc")
    choice.push(1, tuple(b"bcd"), None, 0.0)
    assert bytes(choice.ids) == b"abcd"
    with pytest.raises(ValueError, match="is at 4"):
        choice.push(6, tuple(b"x"), None, 0.0)
