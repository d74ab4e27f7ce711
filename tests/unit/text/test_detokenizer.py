"""Text as a function of the ids alone: the same at every cut, and the same as decoding the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.text.detokenizer import TextStream, whole_text
from headrace.text.tokenizer import Tokenizer
from tests.unit.text.vocabularies import byte_level, byte_level_encoder, sentencepiece, sentencepiece_encoder

TOKENIZERS = {"byte_level": byte_level, "sentencepiece": sentencepiece}
KINDS = st.sampled_from(sorted(TOKENIZERS))
IDS = st.lists(st.integers(0, 300), max_size=40)
STOPS = st.lists(st.text("he <l\n\ufffd", min_size=1, max_size=4), max_size=4)


def at_each_offset(tokenizer: Tokenizer, ids: list[int], stop: list[str]) -> tuple[list[str], int, bool]:
    """The text shown after each token, how many were used, and whether a stop string ended it."""
    stream = TextStream(tokenizer, stop)
    texts, shown = [], ""
    for used, token_id in enumerate(ids, 1):
        pushed = stream.push([token_id])
        shown += pushed.text
        texts.append(shown)
        if pushed.stopped:
            return texts, used, True
    return texts, len(ids), False


def ids_for(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, special=True))


@given(KINDS, IDS, STOPS, st.lists(st.integers(0, 40), max_size=6))
def test_no_cut_changes_the_text_at_any_offset(kind: str, ids: list[int], stop: list[str], cuts: list[int]) -> None:
    tokenizer = TOKENIZERS[kind]()
    texts, used, stopped = at_each_offset(tokenizer, ids, stop)
    stream = TextStream(tokenizer, stop)
    shown, offset = "", 0
    borders = sorted({min(cut, len(ids)) for cut in cuts} | {len(ids)})
    for border in borders:
        pushed = stream.push(ids[offset:border])
        shown += pushed.text
        offset += pushed.used
        assert shown == (texts[offset - 1] if offset else "")
        if pushed.stopped:
            break
    assert (offset, pushed.stopped) == (used, stopped)
    assert shown + stream.flush() == whole_text(tokenizer, ids, stop)


@given(KINDS, IDS, STOPS)
def test_what_is_journaled_shows_what_was_cut(kind: str, ids: list[int], stop: list[str]) -> None:
    """The worker journals the used ids; whoever reads them sees the same text, and stops at the same place."""
    tokenizer = TOKENIZERS[kind]()
    used = TextStream(tokenizer, stop).push(ids).used
    again = TextStream(tokenizer, stop).push(ids[:used])
    assert again.used == used
    assert whole_text(tokenizer, ids[:used], stop) == whole_text(tokenizer, ids, stop)


@given(KINDS, IDS, STOPS)
def test_no_stop_string_is_ever_shown(kind: str, ids: list[int], stop: list[str]) -> None:
    text = whole_text(TOKENIZERS[kind](), ids, stop)
    assert not [word for word in stop if word in text]


@given(st.text())
def test_text_comes_back_as_it_went_in(text: str) -> None:
    assert whole_text(byte_level(), ids_for(byte_level(), text)) == text


@given(st.text())
def test_sentencepiece_text_comes_back_as_it_went_in(text: str) -> None:
    # The word mark is the only character that such a vocabulary cannot tell from a space.
    text = text.replace("\u2581", "")
    assert whole_text(sentencepiece(), ids_for(sentencepiece(), text)) == text


@given(IDS)
def test_equals_decoding_the_whole(ids: list[int]) -> None:
    encoder = byte_level_encoder()
    ids = [i for i in ids if i < encoder.get_vocab_size()]
    assert whole_text(byte_level(), ids) == encoder.decode(ids, skip_special_tokens=True)


@given(st.text("ab ch\u00e9\u65e5\U0001f600"))
def test_sentencepiece_equals_decoding_the_whole(text: str) -> None:
    encoder = sentencepiece_encoder()
    ids = encoder.encode(text, add_special_tokens=False).ids
    assert whole_text(sentencepiece(), ids) == encoder.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("text", ["\U0001f9d1\u200d\U0001f680", "日本語", "é"])
def test_a_split_character_waits_for_its_last_byte(text: str) -> None:
    ids = ids_for(byte_level(), text)
    assert len(ids) == len(text.encode())
    stream = TextStream(byte_level())
    for end, token_id in enumerate(ids, 1):
        whole = text.encode()[:end].decode(errors="ignore")
        before = text.encode()[: end - 1].decode(errors="ignore")
        assert stream.push([token_id]).text == whole.removeprefix(before)
    assert stream.flush() == ""


def test_half_a_character_at_the_end_is_shown_as_a_replacement() -> None:
    ids = ids_for(byte_level(), "ab日")[:-1]
    stream = TextStream(byte_level())
    assert stream.push(ids).text == "ab"
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


def test_special_tokens_and_padding_ids_show_nothing() -> None:
    ids = [*ids_for(byte_level(), "<|im_start|>a<think>b<|im_end|>"), 9_999]
    assert whole_text(byte_level(), ids) == "a<think>b"


def test_the_token_that_completes_a_stop_string_is_the_last_used() -> None:
    # "hell" is one token here: the stop string ends inside it, and "l" is never shown.
    ids = [*ids_for(byte_level(), "a hell"), *ids_for(byte_level(), " no")]
    stream = TextStream(byte_level(), ["hel"])
    pushed = stream.push(ids)
    assert (pushed.text, pushed.stopped) == ("a ", True)
    assert ids[: pushed.used] == ids_for(byte_level(), "a hell")
    assert (stream.push(ids).used, stream.push(ids).text, stream.flush()) == (0, "", "")


def test_the_start_of_a_stop_string_is_held_back_and_released() -> None:
    stream = TextStream(byte_level(), ["END"])
    assert stream.push(ids_for(byte_level(), "a EN")).text == "a "
    assert stream.push(ids_for(byte_level(), "x")).text == "ENx"
    assert stream.push(ids_for(byte_level(), "E")).text == ""
    assert stream.flush() == "E"
