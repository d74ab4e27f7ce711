"""What every blob store promises, on a folder and on S3 alike."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.contract.errors import BlobDamaged, BlobNotFound, BlobsUnavailable, InvalidRequest, SetupError
from headrace.settings import BlobSettings, PathSettings, Settings
from headrace.store.blobs import BlobStore, open_blobs, read_all
from headrace.store.blobs_bucket import Bucket
from headrace.store.blobs_folder import FolderBlobs
from headrace.store.blobs_s3 import S3Blobs
from tests.moto_server import BUCKET, S3Server, s3_server, s3_url

__all__ = ["s3_server", "s3_url"]


def settings(tmp_path: Path, url: str = "", endpoint_url: str = "") -> Settings:
    return Settings(
        paths=PathSettings(data_dir=tmp_path), blobs=BlobSettings(url=url, endpoint_url=endpoint_url, timeout_s=2.0)
    )


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return open_blobs(settings(tmp_path))
    server: S3Server = request.getfixturevalue("s3_server")
    return S3Blobs(server.bucket, request.getfixturevalue("s3_url").rpartition("/")[2])


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 9000])
def test_what_is_put_is_read(blobs: BlobStore, content: bytes) -> None:
    blobs.put("results/job_1", content)
    blobs.put("results/job_2", (content[i : i + 70_001] for i in range(0, len(content), 70_001)))
    assert read_all(blobs, "results/job_1") == read_all(blobs, "results/job_2") == content
    found = blobs.find("results/job_1")
    assert found is not None
    assert (found.key, found.size) == ("results/job_1", len(content))
    assert abs(found.modified_at - time.time() * 1000) < 60_000


def test_a_put_replaces(blobs: BlobStore) -> None:
    blobs.put("a", b"first and long")
    blobs.put("a", b"second")
    assert read_all(blobs, "a") == b"second"


def test_of_several_that_put_if_absent_one_is_told_true(blobs: BlobStore) -> None:
    told: list[bytes] = []

    def work(content: bytes) -> None:
        if blobs.put_if_absent("done/job_1", content):
            told.append(content)

    threads = [threading.Thread(target=work, args=(bytes([i]) * 1000,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(told) == 1
    assert read_all(blobs, "done/job_1") == told[0]
    assert not blobs.put_if_absent("done/job_1", b"later")
    assert not blobs.put_if_absent("done/job_1", iter([b"la", b"ter"]))
    assert read_all(blobs, "done/job_1") == told[0]


def test_what_is_not_there(blobs: BlobStore) -> None:
    blobs.put("results/a", b"1")
    assert blobs.find("results/none") is None
    blobs.delete("results/none")
    with pytest.raises(BlobNotFound, match="results/none"):
        read_all(blobs, "results/none")


def test_a_source_that_fails_puts_nothing(blobs: BlobStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 100
        raise KeyError("the source's own")

    blobs.put("a", b"before")
    with pytest.raises(KeyError):
        blobs.put("a", broken())
    with pytest.raises(KeyError):
        blobs.put_if_absent("b", broken())
    assert read_all(blobs, "a") == b"before"
    assert [blob.key for blob in blobs.listing()] == ["a"]


def test_a_listing_is_in_order(blobs: BlobStore) -> None:
    for index in range(7):
        blobs.put(f"results/job_{index}", bytes(index))
    for key in ("prompts/job_1", "prompts/a/b", "prompts/a-b", "prompts/a.b", "promptsx"):
        blobs.put(key, b"")
    blobs.delete("results/job_3")
    found = [(blob.key[-1], blob.size) for blob in blobs.listing("results/")]
    assert found == [("0", 0), ("1", 1), ("2", 2), ("4", 4), ("5", 5), ("6", 6)]
    assert [blob.key for blob in blobs.listing("results/job_5")] == ["results/job_5"]
    assert list(blobs.listing("nothing/")) == []
    names = ["prompts/a-b", "prompts/a.b", "prompts/a/b", "prompts/job_1"]
    assert [blob.key for blob in blobs.listing("prompts/")] == names
    assert [blob.key for blob in blobs.listing("prompts")] == [*names, "promptsx"]
    assert len(list(blobs.listing())) == 11


def test_a_listing_of_a_folder_reads_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = FolderBlobs(tmp_path)
    for index in range(30):
        blobs.put(f"results/job_{index}", b"")
    read: list[str] = []
    scandir = os.scandir

    def counted(path: Path) -> Iterator[os.DirEntry[str]]:
        read.append(path.name)
        return scandir(path)

    monkeypatch.setattr("os.scandir", counted)
    assert len(list(blobs.listing("results/"))) == 30
    assert read == ["results"]


def test_a_blob_that_only_trickles_is_as_good_as_away(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    blobs.put("a", bytes(3 << 20))
    with pytest.raises(BlobsUnavailable, match="could not be read within"):
        read_all(blobs, "a", limit_s=0.0)


NO_KEYS = ["", "/etc/passwd", "../a", "a/../b", "a//b", "a/", ".hidden", "a b", "a\n", "ä", "a" * 600]


def test_keys_that_are_none(blobs: BlobStore) -> None:
    for key in NO_KEYS:
        with pytest.raises(InvalidRequest, match="key of a blob"):
            blobs.put(key, b"")
        with pytest.raises(InvalidRequest):
            blobs.put_if_absent(key, b"")
        with pytest.raises(InvalidRequest):
            read_all(blobs, key)
        with pytest.raises(InvalidRequest):
            blobs.find(key)
        with pytest.raises(InvalidRequest):
            blobs.delete(key)
    for prefix in ("/", "../", "a/../", ".parts", "a b"):
        with pytest.raises(InvalidRequest):
            next(blobs.listing(prefix))


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-1], lambda data: data[:-1] + b"?", lambda data: data + b"x", lambda _: b"", lambda _: b"{}"],
)
def test_a_damaged_file_is_no_data(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    blobs = FolderBlobs(tmp_path)
    blobs.put("a", b"content " * 400_000)
    (tmp_path / "a").write_bytes(damage((tmp_path / "a").read_bytes()))
    chunks: list[bytes] = []
    with pytest.raises(BlobDamaged):
        chunks.extend(blobs.read("a"))
    assert len(b"".join(chunks)) < len(b"content " * 400_000)


def test_a_damaged_object_is_no_data(tmp_path: Path, s3_server: S3Server, s3_url: str) -> None:
    blobs = open_blobs(settings(tmp_path, s3_url, s3_server.endpoint_url))
    prefix = s3_url.rpartition("/")[2]
    blobs.put("c", b"whole")
    assert read_all(blobs, "c") == b"whole"
    s3_server.s3.put_object(Bucket=BUCKET, Key=f"{prefix}/a", Body=b"tampered", Metadata={"sha256": "0" * 64})
    s3_server.s3.put_object(Bucket=BUCKET, Key=f"{prefix}/b", Body=b"a stranger's")
    for key in ("a", "b"):
        with pytest.raises(BlobDamaged):
            read_all(blobs, key)


def test_large_objects_go_in_parts(s3_server: S3Server) -> None:
    blobs = S3Blobs(Bucket(BUCKET, endpoint_url=s3_server.endpoint_url, part_bytes=5 << 20), "p")
    chunk = bytes(range(256)) * 1024
    assert blobs.put_if_absent("large", (chunk for _ in range(24)))
    assert read_all(blobs, "large") == chunk * 24
    assert not blobs.put_if_absent("large", (chunk for _ in range(24)))
    assert s3_server.s3.head_object(Bucket=BUCKET, Key="p/large")["ETag"].endswith('-2"')
    assert not s3_server.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_a_store_that_does_not_answer(tmp_path: Path, s3_server: S3Server) -> None:
    started = time.monotonic()
    nowhere = open_blobs(settings(tmp_path, "s3://bucket/p", "http://127.0.0.1:9"))
    no_bucket = open_blobs(settings(tmp_path, "s3://no-such-bucket/p", s3_server.endpoint_url))
    for blobs in (nowhere, no_bucket):
        with pytest.raises(BlobsUnavailable, match="cannot be used"):
            blobs.put("a", b"x")
        with pytest.raises(BlobsUnavailable):
            next(blobs.listing("a"))
    with pytest.raises(BlobsUnavailable):
        read_all(nowhere, "a")
    assert time.monotonic() - started < 20


def test_a_folder_that_is_not_mounted_is_no_loss(tmp_path: Path) -> None:
    with pytest.raises(BlobsUnavailable, match="cannot be used"):
        read_all(FolderBlobs(tmp_path / "away"), "results/a")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BlobsUnavailable):
        FolderBlobs(tmp_path / "file").put("a", b"x")


@pytest.mark.parametrize("url", ["", "{}", "file://{}"])
def test_what_the_setting_may_say(tmp_path: Path, url: str) -> None:
    open_blobs(settings(tmp_path, url.format(tmp_path / "blobs"))).put("a", b"x")
    assert (tmp_path / "blobs" / "a").is_file()


@pytest.mark.parametrize("url", ["gs://bucket", "file://host/path", "file://", "s3://", "s3:///key"])
def test_what_the_setting_may_not_say(tmp_path: Path, url: str) -> None:
    with pytest.raises(SetupError):
        open_blobs(settings(tmp_path, url))
