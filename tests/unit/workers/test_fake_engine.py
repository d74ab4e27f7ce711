"""The fake engine's knobs."""

import pytest

from headrace.text.detokenizer import whole_text
from headrace.text.tokenizer import Tokenizer
from workers.inference.fake_engine import Knobs, byte_tokenizer, parse_knobs


def test_knobs_are_read_from_the_model_s_name() -> None:
    assert parse_knobs("fake:") == Knobs()
    assert parse_knobs("fake:speed=2.5,crash_at=4") == Knobs(speed=2.5, crash_at=4)


@pytest.mark.parametrize("text", ["fake:colour=red", "fake:speed=fast", "fake:speed"])
def test_a_wrong_knob_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_knobs(text)


def test_its_tokenizer_is_the_bytes() -> None:
    tokenizer = Tokenizer(byte_tokenizer())
    text = "Grüße, 世界"
    ids = tokenizer.encode(text, special=True)
    assert bytes(ids).decode() == text
    assert whole_text(tokenizer, ids) == text
