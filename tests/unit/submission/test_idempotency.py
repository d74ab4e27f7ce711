"""Keys and hashes: the same body is the same, however it is written."""

import pytest

from headrace.contract.errors import InvalidRequest
from headrace.openai.schema import read_json
from headrace.submission.idempotency import body_hash, check_key, keys_for


def test_white_space_and_order_do_not_matter_and_values_do() -> None:
    one = body_hash(read_json(b'{"a": 1, "b": {"c": "\xc3\xa9", "d": [1, 2]}}'))
    assert one == body_hash(read_json(b'{"b":{"d":[1,2],"c":"\\u00e9"},"a":1}'))
    others = [b'{"a":1}', b'{"a":true,"b":{"c":"\xc3\xa9","d":[1,2]}}', b'{"a":1,"b":{"c":"\xc3\xa9","d":[2,1]}}']
    assert len({one, *(body_hash(read_json(other)) for other in others)}) == 4


@pytest.mark.parametrize("key", ["", "a", "k" * 255, "!~:/{}"])
def test_good_keys(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["k" * 256, "a b", "a\n", "é", "\x00", " "])
def test_bad_keys(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_key(key)
    assert caught.value.param == "Idempotency-Key"


def test_the_jobs_of_one_request_have_keys_of_their_own() -> None:
    assert keys_for("", 3) == ("", "", "")
    assert keys_for("k", 1) == ("k",)
    keys = keys_for("k" * 255, 3)
    assert keys == keys_for("k" * 255, 3)
    assert keys[0] == "k" * 255
    assert len({*keys, *keys_for("l", 3)}) == 6
    assert all(check_key(key) for key in keys)
