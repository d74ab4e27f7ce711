"""`headrace chat` as people and pipes use it, against a real fleet with the fake engine."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import Client
from tests.e2e.fleet import Fleet
from tests.unit.cli.test_main import run


class Terminal:
    """The command on a terminal of its own: keys in, screen out."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headrace.cli.main", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=os.environ | {"TERM": "dumb"},
            # A shell lets what it runs in the background ignore Ctrl-C, and children inherit that; a terminal's do not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(slave)
        self.screen = ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def see(self, text: str, *, after: int = 0, limit_s: float = 30.0) -> int:
        """Read until the screen shows it behind a place; the place behind it."""
        give_up_at = time.monotonic() + limit_s
        while (at := self.screen.find(text, after)) < 0:
            assert time.monotonic() < give_up_at, self.screen
            if select.select([self._master], [], [], 1.0)[0]:
                self.screen += os.read(self._master, 4096).decode()
        return at + len(text)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(fake_fleet: Fleet) -> Iterator[Terminal]:
    terminal = Terminal("chat", "--url", fake_fleet.url, "--seed", "1")
    yield terminal
    terminal.close()


def test_ctrl_c_stops_the_answer_and_cancels_its_job_and_ctrl_d_ends(terminal: Terminal, fake_fleet: Fleet) -> None:
    ready = terminal.see("> ")
    terminal.type("hello\n")
    begun = terminal.see("\n", after=ready)
    while len(terminal.screen) < begun + 20:
        terminal.see("", after=len(terminal.screen) + 1)
    terminal.process.send_signal(signal.SIGINT)
    stopped = terminal.see("> ", after=terminal.see("(stopped)", after=begun))
    with Client(fake_fleet.url) as client:
        assert next(iter(client.jobs(job_class="interactive", limit=1))).state == "CANCELLED"
    terminal.process.send_signal(signal.SIGINT)  # at the prompt it only drops what was typed
    prompt = terminal.see("> ", after=stopped)
    terminal.type("/model\n")
    prompt = terminal.see("> ", after=terminal.see("fake answers", after=prompt))
    terminal.type("\x04")
    assert terminal.process.wait(30) == 0


def test_a_pipe_is_one_prompt_a_line_and_the_turns_are_remembered(fake_fleet: Fleet, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    lines = f"first\n\n//second\n/save {saved}\n/reset\nfirst\n"
    ran = run("chat", "--url", fake_fleet.url, "--max-tokens", "10", "--seed", "1", stdin=lines.encode())
    answers = ran.out.splitlines()
    assert (ran.code, [len(answer) for answer in answers]) == (0, [10, 10, 10])
    assert answers[0] == answers[2] != answers[1]
    assert json.loads(saved.read_text()) == {
        "model": "fake",
        "messages": [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": answers[0]},
            {"role": "user", "content": "/second"},
            {"role": "assistant", "content": answers[1]},
        ],
    }
    assert "\x1b" not in ran.out + ran.err
    with Client(fake_fleet.url) as client:
        messages = [{"role": "user", "content": "first"}, {"role": "assistant", "content": answers[0]}]
        messages.append({"role": "user", "content": "/second"})
        assert client.submit(model="fake", messages=messages, max_tokens=10, seed=1).wait(60).text == answers[1]


def test_a_full_context_is_said_and_nothing_is_dropped(fake_fleet: Fleet) -> None:
    lines = f"{'x' * 1980}\n{'y' * 100}\n/reset\nshort\n"
    ran = run("chat", "--url", fake_fleet.url, "--max-tokens", "10", stdin=lines.encode())
    assert (ran.code, [len(answer) for answer in ran.out.splitlines()]) == (1, [10, 0, 10])
    assert "of 2,048 tokens of context are used" in ran.err
    assert "Nothing was forgotten" in ran.err
    whole = run("chat", "--url", fake_fleet.url, stdin=f"{'x' * 2000}\n".encode())
    assert "The context of 2,048 tokens is full" in whole.err


def test_what_goes_wrong_is_said_and_the_conversation_goes_on(fake_fleet: Fleet) -> None:
    ran = run(
        "chat", "--url", fake_fleet.url, "--max-tokens", "3", stdin=b"/dance\n/model gpt-7\n/save\nhi\n/exit\nno\n"
    )
    assert (ran.code, len(ran.out)) == (1, 4)
    for word in ("/dance", "/help", "gpt-7", "/save"):
        assert word in ran.err


def test_an_unknown_model_ends_at_once(fake_fleet: Fleet) -> None:
    ran = run("chat", "--url", fake_fleet.url, "--model", "gpt-7", stdin=b"hi\n")
    assert (ran.code, ran.out) == (1, "")
    assert "gpt-7" in ran.err
