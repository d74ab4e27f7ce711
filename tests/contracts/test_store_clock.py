"""Blobs are swept by the clock of the store that dates them, and not by that of the host that sweeps."""

import os
import time

import pytest
import redis

from headrace.contract.job import Job
from headrace.settings import BlobSettings, RedisSettings, Settings
from headrace.store.blob_sweep import GRACE_MS, store_time
from headrace.store.blobs import Blob, BlobStore, open_blobs
from headrace.store.blobs_folder import FolderBlobs
from headrace.store.payloads import PROMPTS
from tests.contracts.bench import make_job
from tests.redis_server import RedisServer
from workers.maintenance.sweeps import sweep_blobs


class SlowClock:
    """A store whose clock is a day behind."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.put = blobs.put

    def find(self, key: str) -> Blob | None:
        found = self._blobs.find(key)
        return found and Blob(found.key, found.size, found.modified_at - 86_400_000)


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_host_that_is_ahead_deletes_nothing_that_is_being_submitted(
    redis_server: RedisServer,
    client: redis.Redis,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    ahead: int,
) -> None:
    """The prompt is put before the record that names it."""
    folder = tmp_path_factory.mktemp("blobs")
    settings = Settings.model_construct(redis=RedisSettings(url=redis_server.url), blobs=BlobSettings(url=str(folder)))
    job: Job = make_job()
    open_blobs(settings).put(PROMPTS + job.id, b"a large one")
    right = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: right() + ahead * GRACE_MS * 1_000_000)
    assert sweep_blobs(settings)["deleted"] == 0
    assert open_blobs(settings).find(PROMPTS + job.id) is not None


def test_the_time_is_the_stores_whenever_it_is_asked(tmp_path_factory: pytest.TempPathFactory) -> None:
    blobs = FolderBlobs(tmp_path_factory.mktemp("blobs"))
    first = store_time(blobs)
    assert abs(first - time.time() * 1000) < 60_000
    assert store_time(blobs) >= first
    behind = store_time(SlowClock(blobs))  # type: ignore[arg-type]
    assert abs(first - behind - 86_400_000) < 60_000


def test_what_others_are_just_writing_is_left_by_a_host_that_is_days_ahead(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("blobs")
    FolderBlobs(folder).put("prompts/one", b"a")
    young, old = folder / ".parts" / "young", folder / ".parts" / "old"
    for part in (young, old):
        part.write_bytes(b"half of a blob")
    two_days_ago = old.stat().st_mtime - 2 * 86_400
    os.utime(old, (two_days_ago, two_days_ago))
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 2 * 86_400)
    FolderBlobs(folder)
    assert young.exists()
    assert not old.exists()
