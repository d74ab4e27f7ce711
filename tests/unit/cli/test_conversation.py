"""A conversation's turns and commands."""

import json
from pathlib import Path

import pytest

from headrace.cli.conversation import Command, Conversation, read_line
from headrace.contract.errors import InvalidRequest


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("hello /there", "hello /there"),
        ("//etc is a folder", "/etc is a folder"),
        ("/reset", Command("/reset", "")),
        ("/system  Be kind. ", Command("/system", "Be kind.")),
    ],
)
def test_lines(line: str, read: Command | str) -> None:
    assert read_line(line) == read


def test_a_command_there_is_not() -> None:
    with pytest.raises(InvalidRequest, match="/dance"):
        read_line("/dance now")


def test_turns_are_kept_and_the_system_message_stands_in_front() -> None:
    talk = Conversation("m", "Be kind.")
    talk.keep("a", "b")
    roles = [(message["role"], message["content"]) for message in talk.messages("c")]
    assert roles == [("system", "Be kind."), ("user", "a"), ("assistant", "b"), ("user", "c")]
    talk.reset()
    assert [message["content"] for message in talk.messages("c")] == ["Be kind.", "c"]


def test_saving_overwrites_nothing(tmp_path: Path) -> None:
    talk = Conversation("m")
    talk.keep("ä", "b")
    path = tmp_path / "talk.json"
    talk.save(path)
    saved = json.loads(path.read_text("utf-8"))
    assert saved == {
        "model": "m",
        "messages": [{"role": "user", "content": "ä"}, {"role": "assistant", "content": "b"}],
    }
    with pytest.raises(InvalidRequest, match="exists"):
        talk.save(path)
