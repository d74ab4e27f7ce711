import json

from gateway import sse


def test_a_frame_has_its_fields_and_one_blank_line() -> None:
    assert sse.frame({"a": 1}, event="delta", event_id="1.2.3") == b'id: 1.2.3\nevent: delta\ndata: {"a":1}\n\n'


def test_a_frame_for_the_openai_routes_is_data_only() -> None:
    assert sse.frame({"a": 1}) == b'data: {"a":1}\n\n'


def test_line_breaks_in_text_stay_inside_the_data_line() -> None:
    text = "a\nb\r\nc\u2028d\u0085e"
    data = sse.frame({"text": text})
    assert data.count(b"\n") == 2
    assert json.loads(data.removeprefix(b"data: ")) == {"text": text}


def test_the_keep_alive_is_one_line_without_a_blank_one() -> None:
    assert sse.PING == b": ping\n"
