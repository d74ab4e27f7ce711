"""Celery's spelling of things."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.celery_app import broker_url


@pytest.mark.parametrize(
    ("redis_url", "broker"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("rediss://u:p@h:1/2", "rediss://u:p@h:1/2"),
        ("unix:///run/r.sock", "redis+socket:///run/r.sock"),
        ("unix://:secret@/run/r.sock?db=3", "redis+socket://:secret@/run/r.sock?virtual_host=3"),
    ],
)
def test_broker_urls(redis_url: str, broker: str) -> None:
    assert broker_url(redis_url) == broker


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in some other folder, with nothing of ours in its environment."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=inherited | variables, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_only_asking_for_the_app_reads_settings(tmp_path: Path) -> None:
    code = "import workers.celery_app as c; c.make_app; print('imported'); c.app"
    done = run(tmp_path, "-c", code, HEADRACE_NO__SUCH="1")
    assert done.stdout == "imported\n"
    assert done.returncode == 1
    assert done.stderr.startswith("headrace: Unknown setting no (environment).")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("url", "said"), [("", "HEADRACE_REDIS__URL"), ("amqp://h", "is not the URL of a Redis")])
def test_without_a_redis_it_says_so_in_one_line(tmp_path: Path, url: str, said: str) -> None:
    command = ("-m", "celery", "-A", "workers.celery_app", "inspect", "ping")
    done = run(tmp_path, *command, HEADRACE_REDIS__URL=url)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_the_role_knows_its_tasks_and_queues_and_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from workers.celery_app import app; app.finalize()\n"
        "print(sorted(name for name in app.tasks if name.startswith('headrace.')), sorted(app.amqp.queues))\n"
        "print([name for name in ('torch', 'engine', 'kernels', 'numpy') if name in sys.modules])"
    )
    done = run(tmp_path, "-c", code, HEADRACE_REDIS__URL="redis://127.0.0.1:1/0")
    assert done.stdout.splitlines() == [
        "['headrace.maintenance.reap', 'headrace.maintenance.sweep_blobs', 'headrace.maintenance.trim_index']"
        " ['batches', 'documents', 'maintenance']",
        "[]",
    ], done.stderr
