"""One process: when it is started again, and that nothing of it stays."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from headrace.contract.errors import SetupError
from headrace.supervisor.process import Process, Restart, RestartPolicy, Spec


def python(source: str, name: str = "dummy", grace_s: float = 5.0) -> Spec:
    return Spec(name, (sys.executable, "-c", source), grace_s=grace_s)


def until(condition: Callable[[], object], limit_s: float = 20.0) -> None:
    give_up_at = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_delays_double_up_to_ten_seconds() -> None:
    deaths, delays = 0, []
    for _ in range(8):
        restart = RestartPolicy().after_death(deaths, lived_s=1.0)
        deaths = restart.deaths
        delays.append(restart.delay_s)
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_health_is_forgiveness() -> None:
    assert RestartPolicy().after_death(7, lived_s=30.0) == Restart(1, 0.2)


def test_output_goes_to_the_log(tmp_path: Path) -> None:
    process = Process(python("import sys; print('out'); sys.exit('cannot go on')"), tmp_path / "logs" / "dummy.log")
    until(lambda: process.exit_code is not None)
    process.clear()
    assert process.exit_code == 1
    assert process.last_words() == "cannot go on"


def test_output_may_go_to_standard_error_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    process = Process(python("print('hello')"), tmp_path / "dummy.log", echo=True)
    until(lambda: process.last_words() == "hello")
    process.clear()
    shown = ""

    def heard() -> bool:
        nonlocal shown
        shown += capfd.readouterr().err
        return "dummy | hello" in shown

    until(heard)


def test_variables_are_added(tmp_path: Path) -> None:
    spec = Spec("dummy", (sys.executable, "-c", "import os; print(os.environ['WATER'])"), {"WATER": "wheel"})
    process = Process(spec, tmp_path / "dummy.log")
    until(lambda: process.exit_code == 0)
    process.clear()
    assert process.last_words() == "wheel"


def test_children_that_outlive_it_are_cleared_away(tmp_path: Path) -> None:
    source = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    process = Process(python(f"{source}; print(p.pid, flush=True)"), tmp_path / "dummy.log")
    until(lambda: process.exit_code == 0)
    child = psutil.Process(int(process.last_words()))
    assert child.is_running()
    process.clear()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be started"):
        Process(Spec("dummy", ("/nowhere/at-all",)), tmp_path / "dummy.log")


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a folder should be")
    with pytest.raises(SetupError, match="cannot be written"):
        Process(python("pass"), tmp_path / "logs" / "dummy.log")
