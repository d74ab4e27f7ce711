"""The task role as a process: its sweeps, its schedule, its end; and what strangers may send it."""

import inspect
import os
import signal
import time
from pathlib import Path

import psutil
from billiard import pool
from celery import Celery

from headrace.contract.ids import new_job_id
from headrace.settings import PathSettings, RedisSettings, Settings
from headrace.store import keys
from headrace.store.blobs import BlobStore, open_blobs
from tests.integration.workers.fleet import Fleet, eventually
from tests.integration.workers.processes import LIMIT_S, Processes
from workers.celery_app import make_app
from workers.maintenance.sweeps import reap, sweep_blobs, trim_index
from workers.task_role import LAST_LOOKS, task_app

WORKER = (
    "celery",
    "-q",
    "-A",
    "workers.celery_app",
    "worker",
    "-Q",
    "documents,batches,maintenance",
    "-n",
    "tasks@here",
)
QUICK = ("--without-mingle", "--without-gossip")
INDEX = keys.job_index("default")


def settings_of(fleet: Fleet, data: Path) -> Settings:
    return Settings(redis=RedisSettings(url=fleet.server.url), paths=PathSettings(data_dir=data))


def old_blob(blobs: BlobStore, data: Path) -> str:
    """A result put two hours ago, whose record is gone."""
    key = f"results/{new_job_id()}"
    blobs.put(key, b"text")
    then = time.time() - 7200
    os.utime(data / "blobs" / key, (then, then))
    return key


def plant_entry(fleet: Fleet) -> str:
    """An entry in the index whose record is gone."""
    job_id = new_job_id()
    fleet.client.zadd(INDEX, {job_id: 1})
    return job_id


def test_sweeps_leave_what_is_wanted_and_may_run_twice(fleet: Fleet, tmp_path: Path) -> None:
    settings = settings_of(fleet, tmp_path)
    blobs = open_blobs(settings)
    gone, kept = [plant_entry(fleet) for _ in range(250)], fleet.submit_to("m@stable", "r")
    doomed = old_blob(blobs, tmp_path)
    young = f"results/{new_job_id()}"
    blobs.put(young, b"text")
    assert trim_index(settings) == {"dropped": len(gone)}
    assert fleet.client.zrange(INDEX, 0, -1) == [kept.encode()]
    assert sweep_blobs(settings) == {"deleted": 1}
    assert blobs.find(doomed) is None
    assert blobs.find(young) is not None
    assert trim_index(settings) == {"dropped": 0}
    assert sweep_blobs(settings) == {"deleted": 0}
    assert reap(settings) == {"requeued": 0, "expired": 0, "dead": 0}


def test_a_process_of_the_pool_does_not_wait_long_for_a_parent_that_ends() -> None:
    """Half a minute by itself, in about one end of a hundred. The names are billiard's own."""
    looks = inspect.getsource(pool.Worker._ensure_messages_consumed)
    assert "range(GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT)" in looks
    assert pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL == 0.1
    task_app(Settings(redis=RedisSettings(url="redis://127.0.0.1:1")))
    assert pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT == LAST_LOOKS


def strange_messages(fleet: Fleet) -> None:
    """A task that nobody knows, and one of ours as a pickle and with arguments that it does not take."""
    stranger = Celery("stranger", broker=make_app(RedisSettings(url=fleet.server.url)).conf.broker_url)
    stranger.conf.accept_content = ["json", "pickle"]
    for name, serializer in (
        ("no.such.task", "json"),
        ("headrace.maintenance.reap", "pickle"),
        ("headrace.maintenance.reap", "json"),
    ):
        stranger.send_task(name, args=[1], queue="maintenance", serializer=serializer)
    stranger.close()


def test_it_sweeps_by_the_clock_and_another_goes_on_after_a_kill(fleet: Fleet, tmp_path: Path) -> None:
    processes = Processes(fleet, tmp_path)
    blobs = open_blobs(settings_of(fleet, processes.data))
    doomed, entry = old_blob(blobs, processes.data), plant_entry(fleet)
    strange_messages(fleet)
    with processes.running("first", *WORKER, *QUICK, "-B") as first:
        eventually(lambda: blobs.find(doomed) is None, "blob swept")
        eventually(lambda: fleet.client.zscore(INDEX, entry) is None, "entry swept")
        eventually(lambda: fleet.client.hexists(keys.REAP, "at"), "reaped")
        children = psutil.Process(first.pid).children(recursive=True)
        assert first.poll() is None
        first.send_signal(signal.SIGKILL)
        first.wait(5)
    said = processes.log("first")
    assert "no.such.task" in said
    assert "Refusing to deserialize untrusted content of type pickle" in said

    doomed, entry = old_blob(blobs, processes.data), plant_entry(fleet)
    with (
        processes.running("second", *WORKER, *QUICK) as second,
        processes.running("beat", "celery", "-q", "-A", "workers.celery_app", "beat") as beat,
    ):
        eventually(lambda: blobs.find(doomed) is None, "blob swept again")
        eventually(lambda: fleet.client.zscore(INDEX, entry) is None, "entry swept again")
        app = make_app(RedisSettings(url=fleet.server.url))
        asked = app.control.inspect(destination=["tasks@here"], timeout=1.0, limit=1)
        queues = eventually(asked.active_queues, "queues")
        assert sorted(queue["name"] for queue in queues["tasks@here"]) == ["batches", "documents", "maintenance"]
        app.close()
        for process in (beat, second):
            process.send_signal(signal.SIGTERM)
        assert (second.wait(LIMIT_S), beat.wait(LIMIT_S)) == (0, 0)
    _, orphans = psutil.wait_procs(children, timeout=LIMIT_S)
    assert not orphans
    assert (processes.data / "celery").is_dir()
    assert list(processes.here.iterdir()) == []
