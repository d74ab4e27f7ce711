"""The task role as docker-compose.yml starts, watches and stops it, from the files that its image has."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.deployment.dockerfile import copy
from tests.integration.gateway.scripted_worker import wait_for
from tests.redis_server import RedisServer


@pytest.mark.usefixtures("store")
def test_it_starts_answers_its_healthcheck_and_stops_in_time(
    everything: Mapping[str, Any], deployment_redis: RedisServer, tmp_path: Path
) -> None:
    service = everything["tasks"]
    copy(["headrace", "workers"], tmp_path)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environment = {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HEADRACE_REDIS__URL": deployment_redis.url,
        "HEADRACE_PATHS__DATA_DIR": str(tmp_path / "data"),
    }
    (tmp_path / "data").mkdir()
    shell, check = service["healthcheck"]["test"]
    assert shell == "CMD-SHELL"
    check = check.replace("$$", "$")  # Compose's way to write one

    def healthy() -> bool:
        ended = subprocess.run(check, shell=True, cwd=tmp_path, env=environment, capture_output=True, timeout=30)
        return ended.returncode == 0

    with (tmp_path / "log").open("wb") as log:
        command = [*service["entrypoint"], *service["command"]]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log, process_group=0)
    try:
        wait_for(lambda: b"ready." in (tmp_path / "log").read_bytes() or process.poll() is not None, 30)
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert healthy()
        process.terminate()
        assert process.wait(15) == 0  # stop_grace_period
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
    assert not any(path.suffix == ".pid" for path in tmp_path.iterdir())
