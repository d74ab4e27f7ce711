"""The text a reader sees does not depend on where its connection was cut, nor on how the events were cut up."""

import itertools
import random
from dataclasses import replace

import pytest

from gateway.cursor import Cursor
from gateway.transcript import Transcript
from headrace.contract.events import Accepted, Completed, Delta, Event, Resumed, Started
from headrace.contract.generation import TokenLogprobs, Usage
from headrace.text.detokenizer import TextStream
from tests.unit.gateway.byte_model import byte_tokenizer, ids_of

TEXT = "naïve — 東京 🙂🙃, EN still going"
TOKENIZER = byte_tokenizer()


def stream(revision: str = "") -> TextStream:
    return TextStream(TOKENIZER, ("END",))


def journal(cuts: list[int], text: str = TEXT, first_seq: int = 1) -> list[Event]:
    """Events of a whole job whose deltas end at these offsets; the last one carries the finish_reason."""
    ids = ids_of(text)
    events: list[Event] = [Accepted(0, "job_x", 0), Started(0, 1, "w", "r", "d")]
    for low, high in itertools.pairwise([0, *cuts, len(ids)]):
        events.append(Delta(0, 0, low, ids[low:high], finish_reason="length" if high == len(ids) else None))
    events.append(Completed(0, Usage(1, len(ids))))
    return [renumbered(event, seq) for seq, event in enumerate(events, first_seq)]


def renumbered(event: Event, seq: int) -> Event:
    return replace(event, seq=seq)


def read(transcript: Transcript, events: list[Event]) -> list[Event]:
    shown = []
    for event in events:
        assert transcript.fits(event)
        if (seen := transcript.feed(event)) is not None:
            shown.append(seen)
    return shown


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def ids_in(events: list[Event]) -> tuple[int, ...]:
    return tuple(itertools.chain.from_iterable(event.token_ids for event in events if isinstance(event, Delta)))


def test_every_cut_joins_to_the_same_text() -> None:
    events = journal([3, 4, 9, 10, 11, 17, 30, 31])
    whole = read(Transcript(Cursor.start(1), stream), events)
    assert text_of(whole) == TEXT
    first = Transcript(Cursor.start(1), stream)
    before: list[Event] = []
    for event in events:
        shown = first.feed(event)
        assert shown is not None
        before.append(shown)
        cursor = Cursor.parse(str(first.cursor), 1, 1000)
        after = read(Transcript(cursor, stream), events)
        assert before + after == whole


def test_a_journal_cut_up_anew_after_a_failover_shows_no_token_twice_and_none_never() -> None:
    rng = random.Random(7)
    ids = ids_of(TEXT)
    for _ in range(60):
        old, new = (journal(sorted(rng.sample(range(1, len(ids)), rng.randint(1, 12)))) for _ in range(2))
        stop = rng.randrange(1, len(old))
        first = Transcript(Cursor.start(1), stream)
        before = read(first, old[:stop])
        after = read(Transcript(first.cursor, stream), new)
        assert text_of(before + after) == TEXT
        assert ids_in(before + after) == ids
        assert (before + after)[-1].type == "completed"


def test_feeding_again_shows_nothing_again() -> None:
    events = journal([5, 20])
    transcript = Transcript(Cursor.start(1), stream)
    read(transcript, events)
    assert not any(transcript.is_news(event) for event in events)
    assert read(transcript, events) == []


def test_what_comes_after_missing_tokens_does_not_fit() -> None:
    transcript = Transcript(Cursor.start(1), stream)
    assert not transcript.fits(Delta(3, 0, 5, (1, 2)))


def test_a_last_delta_without_ids_brings_the_reason_and_the_text_held_back() -> None:
    transcript = Transcript(Cursor.start(1), stream)
    assert text_of(read(transcript, [Delta(3, 0, 0, ids_of("so EN"))])) == "so "
    last = transcript.feed(Delta(4, 0, 5, (), finish_reason="length"))
    assert last == Delta(4, 0, 5, (), "EN", "length")
    assert transcript.feed(Delta(4, 0, 5, (), finish_reason="length")) is None


def test_logprobs_are_cut_with_their_ids_and_the_prompts_come_once() -> None:
    def said(offset: int, *ids: int) -> Delta:
        scores = tuple(TokenLogprobs(-float(i)) for i in ids)
        front = (None, TokenLogprobs(-0.5)) if offset == 0 else ()
        return Delta(3 + offset, 0, offset, ids, logprobs=scores, prompt_logprobs=front)

    events: list[Event] = [said(0, 65, 66, 67), said(3, 68, 69)]
    for seen in range(6):
        shown = read(Transcript(Cursor(2, (seen,)), stream), events)
        found = [event for event in shown if isinstance(event, Delta)]
        scored = [-score.logprob for event in found for score in event.logprobs]
        assert scored == [token for event in found for token in event.token_ids] == [65, 66, 67, 68, 69][seen:]
        assert [bool(event.prompt_logprobs) for event in found[:1]] == [seen == 0][: len(found)]


def test_the_scores_of_a_prompt_without_an_answer_are_shown() -> None:
    scored = Delta(3, 0, 0, (), finish_reason="length", prompt_logprobs=(None, TokenLogprobs(-0.5)))
    assert Transcript(Cursor.start(1), stream).feed(scored) == scored
    assert Transcript(Cursor(3, (0,), frozenset({0})), stream).feed(scored) is None


def test_the_stop_string_is_not_shown() -> None:
    transcript = Transcript(Cursor.start(1), stream)
    shown = read(transcript, [Delta(3, 0, 0, ids_of("one E")), Delta(4, 0, 5, ids_of("ND"), finish_reason="stop")])
    assert text_of(shown) == "one "


@pytest.mark.parametrize("seq", [2, 9])
def test_a_terminal_event_is_shown_once_whatever_its_number(seq: int) -> None:
    transcript = Transcript(Cursor(9, (4,)), stream)
    ending = Completed(seq, Usage(1, 4))
    assert transcript.is_news(ending)
    assert transcript.feed(ending) == ending
    assert transcript.feed(ending) is None
    assert Transcript(transcript.cursor, stream).feed(ending) is None


def test_other_events_are_told_apart_by_number() -> None:
    transcript = Transcript(Cursor(5, (4,)), stream)
    assert transcript.feed(Resumed(5, 2, "w", (4,))) is None
    assert transcript.feed(Resumed(6, 2, "w", (4,))) is not None


def test_choices_do_not_mix() -> None:
    transcript = Transcript(Cursor.start(2), stream)
    events: list[Event] = [
        Delta(3, 1, 0, ids_of("é")[:1]),
        Delta(4, 0, 0, ids_of("a"), finish_reason="stop"),
        Delta(5, 1, 1, ids_of("é")[1:], finish_reason="stop"),
    ]
    shown = read(transcript, events)
    assert [(event.choice, event.text) for event in shown if isinstance(event, Delta)] == [(1, ""), (0, "a"), (1, "é")]
    assert transcript.cursor == Cursor(5, (1, 2), frozenset({0, 1}))


def test_another_model_that_begins_is_read_with_its_own_tokenizer() -> None:
    asked: list[str] = []

    def new_stream(revision: str) -> TextStream:
        asked.append(revision)
        return stream()

    transcript = Transcript(Cursor.start(1), new_stream)
    events: list[Event] = [Started(2, 1, "w", "r", "d"), Started(3, 2, "v", "other", "e"), Delta(4, 0, 0, ids_of("Hi"))]
    assert text_of(read(transcript, events)) == "Hi"
    assert asked == ["", "r", "other"]
    assert transcript.feed(events[1]) is None
    assert asked == ["", "r", "other"]
