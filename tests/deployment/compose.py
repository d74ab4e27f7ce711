"""What Compose makes of docker-compose.yml, without a daemon: resolved by the real `docker-compose config`."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.deployment.dockerfile import ROOT

FILE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / ".env.example"
PROFILES = ("gpu", "sqs", "rabbitmq", "ledger", "observability")


def config(folder: Path, *profiles: str, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The resolved services and volumes. Raises AssertionError with Compose's own words for an invalid file."""
    env_file = folder / "test.env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in (variables or {}).items()))
    command = [str(Path(sys.executable).with_name("docker-compose")), "--file", str(FILE), "--env-file", str(env_file)]
    command += [word for profile in profiles for word in ("--profile", profile)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    command += ["config", "--format", "json"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr, ended.stderr
    resolved: dict[str, Any] = json.loads(ended.stdout)
    return resolved


def examples() -> dict[str, str]:
    """Every variable that .env.example tells of, and the value it shows."""
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE.read_text(), flags=re.MULTILINE))
