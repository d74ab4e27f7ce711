import pytest

from gateway.body import parse_json
from headrace.contract.errors import InvalidRequest


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": "\xff\xfe"}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b"[1]",
        b"null",
        b"3",
        b'"text"',
        b"true",
    ],
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="body"):
        parse_json(raw)


def test_order_and_spaces_do_not_make_another_body() -> None:
    one, two = parse_json(b'{"a": 1, "b": {"c": [1, 2], "d": "x"}}'), parse_json(b'{"b":{"d":"x","c":[1,2]},"a":1}')
    assert one.hash == two.hash
    assert one.hash != parse_json(b'{"a":1,"b":{"c":[2,1],"d":"x"}}').hash
