"""A blob store that hangs, seen from an event loop."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.contract.errors import BlobsUnavailable
from headrace.store.async_payloads import THREADS, AsyncPayloads
from headrace.store.blobs_folder import FolderBlobs
from headrace.store.payloads import Payloads


class Hanging(FolderBlobs):
    """No read comes back before `let_go`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.let_go = threading.Event()

    def read(self, key: str) -> Iterator[bytes]:
        self.let_go.wait(30)
        return super().read(key)


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Hanging]:
    blobs = Hanging(tmp_path)
    blobs.put("results/job_1.1", b"whole")
    yield blobs
    blobs.let_go.set()


async def test_a_store_that_hangs_takes_no_thread_from_others(hanging: Hanging) -> None:
    payloads = AsyncPayloads(Payloads(hanging))
    reads = [asyncio.create_task(payloads.fetch_result("job_1", "blob:results/job_1.1")) for _ in range(THREADS * 8)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "tokenized"), 5) == "tokenized"
    hanging.let_go.set()
    assert set(await asyncio.gather(*reads)) == {b"whole"}
    payloads.close()


async def test_a_wait_for_a_blob_ends(hanging: Hanging) -> None:
    payloads = AsyncPayloads(Payloads(hanging), limit_s=0.05)
    with pytest.raises(BlobsUnavailable, match=r"did not answer within 0\.05 s"):
        await payloads.fetch_result("job_1", "blob:results/job_1.1")
    payloads.close()
