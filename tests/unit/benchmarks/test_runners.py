"""The line protocol between driver and runner, with a runner that counts instead of generating."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks.arguments import names
from benchmarks.peers.environments import run_step
from benchmarks.peers.peer import PEERS, find
from benchmarks.peers.process import PeerError, RunnerProcess
from benchmarks.workloads import WORKLOADS, Ask

COUNTING = """
import os, time
from benchmarks.peers.serving import serve

class Counting:
    def about(self):
        print("chatter on standard output")
        return {"version": "1", "pid": os.getpid()}
    def prepare(self, asks):
        return asks
    def run(self, asks):
        kind = asks[0][0][0]
        if kind == 1: raise RuntimeError("out of cards")
        if kind == 2: time.sleep(60)
        if kind == 3: return [0] * len(asks)
        if kind == 4: return [new for _, new in asks], 2.0
        return [new for _, new in asks]

serve(lambda options: Counting())
"""
WELL, RAISES, HANGS, SHORT, OWN_CLOCK = range(5)
START_S = 60.0


@contextmanager
def runner(tmp_path: Path, script: str = COUNTING, timeout_s: float = START_S) -> Iterator[RunnerProcess]:
    command = [sys.executable, "-c", script, "{}"]
    with RunnerProcess(command, {"PYTHONWARNINGS": "default"}, tmp_path / "runner.log", timeout_s) as process:
        yield process


def asks(kind: int) -> tuple[Ask, ...]:
    return (Ask((kind, 7), 5), Ask((kind, 8), 3))


def test_a_run_is_timed_and_its_tokens_counted(tmp_path: Path) -> None:
    with runner(tmp_path) as process:
        assert process.about["version"] == "1"
        assert process.start_s >= process.load_s
        ran = process.run(asks(WELL), START_S)
        assert ran.output_tokens == 8
        assert ran.tokens_per_second == 8 / ran.seconds
        assert process.run(asks(OWN_CLOCK), START_S).tokens_per_second == 4.0


def test_a_runner_sleeps_between_runs_and_is_gone_at_the_end(tmp_path: Path) -> None:
    with runner(tmp_path) as process:
        pid = process.about["pid"]
        process.run(asks(WELL), START_S)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        assert psutil.Process(pid).status() == psutil.STATUS_STOPPED
    assert not process.alive
    assert not psutil.pid_exists(pid)


def test_other_lengths_than_asked_for_are_an_error_unless_allowed(tmp_path: Path) -> None:
    with runner(tmp_path) as process:
        with pytest.raises(PeerError, match="gave 0 tokens where 8"):
            process.run(asks(SHORT), START_S)
        assert process.run(asks(SHORT), START_S, all_of_them=False).output_tokens == 0


def test_an_engine_that_raises_is_reported_in_its_own_words(tmp_path: Path) -> None:
    with runner(tmp_path) as process:
        with pytest.raises(PeerError, match="out of cards"):
            process.run(asks(RAISES), START_S)
        with pytest.raises(PeerError):
            process.run(asks(WELL), START_S)


def test_an_engine_that_hangs_is_ended(tmp_path: Path) -> None:
    with runner(tmp_path) as process, pytest.raises(PeerError, match=r"longer than 0\.05 s"):
        process.run(asks(HANGS), 0.05)


def test_an_engine_that_does_not_start_is_reported_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="no such engine"), runner(tmp_path, "raise SystemExit('no such engine')"):
        pass


def test_a_failed_step_of_an_installation_is_reported_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"ended with 3:\nno wheel"):
        run_step(("sh", "-c", "echo no wheel; exit 3"), tmp_path)
    with pytest.raises(PeerError, match="no-such-command"):
        run_step(("no-such-command",), tmp_path)


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_is_found_by_its_name(name: str) -> None:
    peer = find(name)
    assert peer.name == name
    assert peer.workloads is None or peer.workloads <= WORKLOADS.keys()
    assert any(map(peer.runs, WORKLOADS))


def test_unknown_names_are_refused() -> None:
    split = names(PEERS)
    assert split("openvino,vllm") == ["openvino", "vllm"]
    with pytest.raises(Exception, match="tgi: unknown; known are openvino"):
        split("openvino,tgi")
