"""A reader's place: nothing twice, nothing skipped, and an end to patience."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.client.retry import Failure, Patience
from headrace.client.stream_state import StreamState, Verdict
from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Accepted, Completed, Delta, Event, Resumed, Retrying
from headrace.contract.generation import Usage

ACCEPTED = Accepted(1, "job_x", 0)


def delta(seq: int, offset: int, count: int = 1, choice: int = 0, finish_reason: str | None = None) -> Delta:
    return Delta(seq, choice, offset, tuple(range(offset, offset + count)), "", finish_reason)


def take_all(state: StreamState, events: list[Event]) -> list[Verdict]:
    return [state.take(event, f"c{event.seq}") for event in events]


def test_a_whole_stream_is_shown_and_ends() -> None:
    state = StreamState(0.0)
    verdicts = take_all(state, [ACCEPTED, delta(2, 0, 3), delta(3, 3), Completed(4, Usage(1, 4))])
    assert verdicts == [Verdict.SHOW] * 4
    assert state.ended
    assert state.cursor == "c4"


def test_what_was_seen_is_dropped_after_a_reconnect() -> None:
    state = StreamState(0.0)
    events: list[Event] = [ACCEPTED, delta(2, 0, 3), delta(3, 3)]
    take_all(state, events)
    assert take_all(state, events) == [Verdict.DROP] * 3
    assert state.cursor == "c3"


def test_a_hole_asks_for_another_read_and_moves_nothing() -> None:
    state = StreamState(0.0)
    take_all(state, [ACCEPTED, delta(2, 0, 3)])
    assert state.take(delta(4, 5), "c4") is Verdict.GAP
    assert state.cursor == "c2"
    assert state.take(delta(3, 3, 2), "c3") is Verdict.SHOW


def test_a_delta_that_straddles_the_place_is_not_shown_in_part() -> None:
    state = StreamState(0.0)
    take_all(state, [ACCEPTED, delta(2, 0, 3)])
    assert state.take(delta(3, 2, 3), "c3") is Verdict.GAP


def test_other_borders_after_a_failover_join_to_the_same_tokens() -> None:
    state = StreamState(0.0)
    error = ErrorInfo("engine_error", "")
    before: list[Event] = [delta(1, 0, 4), Retrying(2, 1000, error)]
    after: list[Event] = [Resumed(3, 2, "w", (4,)), delta(3, 1, 3), delta(4, 4, 2)]
    shown = [event for event in [*before, *after] if state.take(event, "c") is Verdict.SHOW]
    assert [token for event in shown if isinstance(event, Delta) for token in event.token_ids] == [0, 1, 2, 3, 4, 5]


def test_choices_are_counted_apart() -> None:
    state = StreamState(0.0)
    assert (
        take_all(state, [delta(1, 0, 2), delta(2, 0, 1, choice=1), delta(3, 1, 1, choice=1), delta(4, 2)])
        == [Verdict.SHOW] * 4
    )


def test_an_empty_last_delta_is_shown_once() -> None:
    state = StreamState(0.0)
    last = delta(2, 3, 0, finish_reason="stop")
    assert take_all(state, [delta(1, 0, 3), last, last]) == [Verdict.SHOW, Verdict.SHOW, Verdict.DROP]


def test_a_reader_that_begins_in_the_middle_takes_the_first_delta_as_it_comes() -> None:
    state = StreamState(0.0, cursor="opaque")
    assert take_all(state, [delta(9, 40, 2), delta(10, 42), delta(11, 50)]) == [Verdict.SHOW, Verdict.SHOW, Verdict.GAP]


@given(st.lists(st.integers(min_value=1, max_value=6), min_size=1, max_size=12), st.data())
def test_any_replay_shows_every_token_once(sizes: list[int], data: st.DataObject) -> None:
    events, offset = [], 0
    for seq, size in enumerate(sizes, start=1):
        events.append(delta(seq, offset, size))
        offset += size
    state = StreamState(0.0)
    shown: list[int] = []
    while len(shown) < offset:
        begin = data.draw(st.integers(min_value=0, max_value=len(events) - 1))
        for event in events[begin:]:
            verdict = state.take(event, f"c{event.seq}")
            if verdict is Verdict.GAP:
                break
            if verdict is Verdict.SHOW:
                shown += event.token_ids
        else:
            if begin == 0:
                break
    assert shown == list(range(offset))


def test_patience_ends_after_silence_and_not_after_work() -> None:
    state, patience, failure = StreamState(0.0), Patience(silence_s=10), Failure(0)
    state.heard(100.0)
    assert state.cut(failure, patience, now=101.0, jitter=0.0) is not None
    assert state.cut(failure, patience, now=111.0, jitter=0.0) is None
    assert state.silent_s(111.0) == 11.0


def test_a_server_that_never_closes_a_hole_is_given_up() -> None:
    state, patience = StreamState(0.0), Patience()
    delays = []
    for _ in range(10):
        state.take(delta(5, 5), "c")
        delays.append(state.cut(Failure(0), patience, now=0.0, jitter=0.5))
    assert delays[0] is not None
    assert delays[-1] is None
