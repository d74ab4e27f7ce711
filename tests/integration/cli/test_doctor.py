"""`headrace doctor` and shell completion beside a fleet that runs."""

import json

from tests.e2e.fleet import Fleet
from tests.unit.cli.test_main import run


def test_a_fleet_in_order(fake_fleet: Fleet) -> None:
    ran = run(
        "doctor",
        "--json",
        HEADRACE_PATHS__DATA_DIR=str(fake_fleet.data_dir),
        HEADRACE_WORKER__MODEL="fake:",
        HEADRACE_URL=fake_fleet.url,
    )
    found = {one["name"]: one for one in json.loads(ran.out)}
    assert ran.code == 0, ran.out
    assert list(found)[-5:] == ["redis", "clock", "gateway", "ready", "fleet"]
    assert {found[name]["state"] for name in ("settings", "redis", "gateway", "ready", "fleet")} == {"OK"}
    assert "appendfsync always" in found["redis"]["message"]
    assert "1 ready; served: fake" in found["fleet"]["message"]


def test_a_redis_of_ones_own(fake_fleet: Fleet) -> None:
    ran = run("doctor", "--json", "--redis-url", fake_fleet.redis_url)
    found = {one["name"]: one["state"] for one in json.loads(ran.out)}
    assert (found["redis"], found["clock"]) == ("OK", "OK")


def test_models_are_completed_from_the_gateway(fake_fleet: Fleet) -> None:
    ran = run(
        HEADRACE_URL=fake_fleet.url,
        COMP_WORDS="headrace chat --model f",
        COMP_CWORD="3",
        _HEADRACE_COMPLETE="complete_bash",
    )
    assert ran.out.split() == ["fake"]
