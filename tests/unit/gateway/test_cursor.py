import pytest

from gateway.cursor import Cursor
from headrace.contract.errors import InvalidRequest


@pytest.mark.parametrize(
    "cursor",
    [
        Cursor.start(1),
        Cursor(20, (37,)),
        Cursor(20, (37,), frozenset({0})),
        Cursor(21, (37,), frozenset({0}), ended=True),
        Cursor(9, (4, 0, 12), frozenset({0, 2})),
    ],
)
def test_text_and_back(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor), len(cursor.offsets), 64) == cursor


@pytest.mark.parametrize(
    "text",
    ["", "x", "1", "20", "1.20", "1.20.", "1.-1.3", "1.1.3.end.end", "2.1.3", "1.1.3\n", "1.1.65", "1.1.3-4", "1.1.٣"],
)
def test_what_is_no_cursor_of_this_job_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        Cursor.parse(text, 1, 64)
    assert refusal.value.param == "cursor"
