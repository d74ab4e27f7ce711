"""Many processes: restarted, stopped in order, and gone with the supervisor however it goes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from headrace.autoscaler.scaler import Member
from headrace.supervisor.local_scaler import LocalScaler
from headrace.supervisor.process import RestartPolicy, Spec
from headrace.supervisor.supervisor import Death, Supervisor
from tests.unit.supervisor.test_process import python, until

SLEEP = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


class Watched:
    """A supervisor that starts again at once, and what it said."""

    def __init__(self, folder: Path, policy: RestartPolicy | None = None) -> None:
        self.deaths: list[Death] = []
        self.left: list[tuple[str, int, int]] = []
        policy = policy or RestartPolicy(first_s=0.01, longest_s=0.02)
        self.supervisor = Supervisor(
            folder, on_death=self.deaths.append, on_leave=lambda *who: self.left.append(who), policy=policy
        )

    def look(self) -> None:
        self.supervisor.look(time.monotonic())

    def look_until_deaths(self, count: int) -> None:
        def enough() -> bool:
            self.look()
            return len(self.deaths) >= count

        until(enough)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    try:
        yield watched
    finally:
        watched.supervisor.stop([])


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def children_of(folder: Path) -> list[int]:
    """Living processes that were started with this folder in their arguments."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ()) and not gone(process.pid)
    ]


def test_what_dies_is_started_again(watched: Watched) -> None:
    first = watched.supervisor.start(python(SLEEP, "one"))
    other = watched.supervisor.start(python(SLEEP, "two"))
    os.kill(first.pid, signal.SIGKILL)
    watched.look_until_deaths(1)
    death = watched.deaths[0]
    assert (death.spec.name, death.pid, death.exit_code, death.deaths) == ("one", first.pid, -9, 1)
    assert "signal 9" in death.explain()
    assert other.exit_code is None


def test_what_is_held_still_is_not_dead(watched: Watched) -> None:
    held = watched.supervisor.start(python(SLEEP, "held"))
    held_process = psutil.Process(held.pid)
    held_process.suspend()
    until(lambda: held_process.status() == psutil.STATUS_STOPPED)
    watched.look()
    assert (held.exit_code, watched.deaths) == (None, [])
    held_process.resume()
    watched.look()
    assert (watched.supervisor.children()["held"].pid, watched.deaths) == (held.pid, [])


def test_deaths_in_a_row_are_counted_and_explained(watched: Watched) -> None:
    watched.supervisor.start(python("import sys; sys.exit('no model here')", "one"))
    watched.look_until_deaths(3)
    assert [death.deaths for death in watched.deaths] == [1, 2, 3]
    assert watched.deaths[0].explain() == "one ended with exit code 1: no model here"


def test_stop_goes_stage_by_stage(watched: Watched, tmp_path: Path) -> None:
    order = tmp_path / "order"
    source = (
        "import signal, sys, time\n"
        f"def end(*_):\n    open({str(order)!r}, 'a').write(sys.argv[1] + ' ')\n    sys.exit()\n"
        "signal.signal(15, end)\nprint('ready', flush=True)\n"
        "while True: time.sleep(0.05)"  # a signal just before a sleep is heard after it
    )
    for name in ("redis", "gateway", "worker"):
        process = watched.supervisor.start(Spec(name, (sys.executable, "-c", source, name)))
        until(lambda process=process: process.last_words() == "ready")  # type: ignore[misc]
    watched.supervisor.stop([["worker"], ["gateway"]])
    assert order.read_text().split() == ["worker", "gateway", "redis"]


def test_what_does_not_stop_is_killed_at_its_deadline(watched: Watched) -> None:
    process = watched.supervisor.start(python(STUBBORN, "deaf", grace_s=0.2))
    until(lambda: process.last_words() == "deaf")
    watched.supervisor.stop([["deaf"]])
    assert process.exit_code == -signal.SIGKILL


def test_a_hurry_waits_for_nobody(watched: Watched) -> None:
    process = watched.supervisor.start(python(STUBBORN, "deaf", grace_s=600))
    until(lambda: process.last_words() == "deaf")
    watched.supervisor.stop([["deaf"]], hurry=lambda: True)
    assert process.exit_code == -signal.SIGKILL


def test_who_is_retired_leaves_and_is_not_started_again(watched: Watched) -> None:
    stays, goes = watched.supervisor.start(python(SLEEP, "stays")), watched.supervisor.start(python(SLEEP, "goes"))
    watched.supervisor.retire("goes")
    assert watched.supervisor.children()["goes"].leaving

    def left() -> bool:
        watched.look()
        return bool(watched.left)

    until(left)
    assert watched.left == [("goes", goes.pid, -signal.SIGTERM)]
    assert list(watched.supervisor.children()) == ["stays"]
    assert stays.exit_code is None
    assert not watched.deaths
    watched.supervisor.start(python(SLEEP, "goes"))
    assert not watched.supervisor.children()["goes"].leaving


def test_who_is_retired_and_does_not_go_is_killed_at_its_deadline(watched: Watched) -> None:
    process = watched.supervisor.start(python(STUBBORN, "deaf", grace_s=0.2))
    until(lambda: process.last_words() == "deaf")
    watched.supervisor.retire("deaf")

    def left() -> bool:
        watched.look()
        return bool(watched.left)

    until(left)
    assert watched.left == [("deaf", process.pid, -signal.SIGKILL)]
    assert gone(process.pid)


def test_who_waits_for_a_restart_is_retired_at_once(tmp_path: Path) -> None:
    watched = Watched(tmp_path, RestartPolicy(first_s=600))
    watched.supervisor.start(python("import sys; sys.exit(1)", "one"))
    watched.look_until_deaths(1)
    assert watched.supervisor.children()["one"].pid is None
    watched.supervisor.retire("one")
    assert not watched.supervisor.children()
    watched.supervisor.stop([])


UP = """
import sys, time
from pathlib import Path
from headrace.supervisor.process import Spec
from headrace.supervisor.supervisor import Supervisor

supervisor = Supervisor(Path(sys.argv[1]), on_death=print)
for number in (1, 2):
    command = (sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1])
    print(supervisor.start(Spec(f"child-{number}", command)).pid, flush=True)
while True:
    supervisor.look(time.monotonic())
    time.sleep(0.02)
"""


@pytest.fixture
def killed_soon(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen([sys.executable, "-c", UP, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_killed_supervisor_leaves_nothing_behind(killed_soon: "subprocess.Popen[str]", tmp_path: Path) -> None:
    assert killed_soon.stdout is not None
    pids = [int(killed_soon.stdout.readline()) for _ in range(2)]
    assert not any(gone(pid) for pid in pids)
    killed_soon.kill()
    until(lambda: all(gone(pid) for pid in pids))
    until(lambda: not children_of(tmp_path))


def test_a_killed_guardian_is_replaced_and_knows_all(killed_soon: "subprocess.Popen[str]", tmp_path: Path) -> None:
    def guardians() -> list[psutil.Process]:
        family = psutil.Process(killed_soon.pid).children()
        living = [one for one in family if not gone(one.pid)]
        return [one for one in living if any(word.endswith("guardian.py") for word in one.cmdline())]

    assert killed_soon.stdout is not None
    pids = [int(killed_soon.stdout.readline()) for _ in range(2)]
    first = guardians()[0]
    first.kill()
    until(lambda: [one for one in guardians() if one.pid != first.pid])
    killed_soon.kill()
    until(lambda: all(gone(pid) for pid in pids))


def test_what_cannot_be_started_again_is_a_death_and_comes_back_with_its_cause_gone(
    watched: Watched, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.symlink_to(sys.executable)
    process = watched.supervisor.start(Spec("one", (str(program), "-c", SLEEP)))
    other = watched.supervisor.start(python(SLEEP, "two"))
    program.unlink()
    os.kill(process.pid, signal.SIGKILL)
    watched.look_until_deaths(3)
    assert [death.deaths for death in watched.deaths] == [1, 2, 3]
    assert (watched.deaths[-1].pid, watched.deaths[-1].exit_code) == (None, None)
    assert watched.deaths[-1].explain() == f"one cannot be started: No such file or directory ({program})"
    assert other.exit_code is None
    program.symlink_to(sys.executable)

    def back() -> bool:
        watched.look()
        return watched.supervisor.children()["one"].pid is not None

    until(back)


def test_a_worker_that_cannot_be_started_ends_no_scaling(watched: Watched, tmp_path: Path) -> None:
    scaler = LocalScaler(
        watched.supervisor, {"m@stable": ("one", "two")}, lambda _, name: Spec(name, (str(tmp_path / "gone"),)), "tag"
    )
    scaler.start("m@stable", 1)
    assert scaler.members("m@stable") == (Member("one", ""),)
    watched.look_until_deaths(2)
    assert scaler.members("m@stable") == (Member("one", "", crashing=True),)
    scaler.drain("m@stable", ["one"])
    assert scaler.members("m@stable") == ()
