"""Fetching a model from a bucket: moto's S3 over HTTP."""

import hashlib
from pathlib import Path

import pytest

from headrace import models
from headrace.contract.errors import SetupError
from headrace.models import pull
from headrace.models.folder import slug
from headrace.models.names import InBucket, parse
from tests.moto_server import S3Server, s3_server, s3_url

__all__ = ["s3_server", "s3_url"]

CONTENT = b"GGUF" + bytes(range(256)) * 3000


def put(server: S3Server, name: str, content: bytes = CONTENT, **options: object) -> str:
    """The object's ETag."""
    bucket, _, key = name.removeprefix("s3://").partition("/")
    etag: str = server.s3.put_object(Bucket=bucket, Key=key, Body=content, **options)["ETag"]
    return etag


def fetch(server: S3Server, name: str, folder: Path, *, force: bool = False) -> models.ModelFile:
    return pull.pull(name, folder, endpoint_url=server.endpoint_url, force=force)


def test_an_object_is_fetched_once(s3_server: S3Server, s3_url: str, tmp_path: Path) -> None:
    name = f"{s3_url}/Some/My-Model.Q8.gguf"
    etag = put(s3_server, name, Metadata={"sha256": hashlib.sha256(CONTENT).hexdigest()})
    model = fetch(s3_server, name, tmp_path)
    assert (model.id, model.path.read_bytes()) == ("my-model.q8", CONTENT)
    assert models.verify(name, tmp_path) == model
    assert models.resolve(f"mine={name}", tmp_path) == models.ModelFile("mine", model.path)
    [row] = [row for row in models.listing(tmp_path) if row.pulled]
    assert (row.name, row.revision) == (name, etag)
    # Here already: nobody is asked, and what the key holds by now does not matter until it is forced.
    put(s3_server, name, CONTENT + b"new")
    assert pull.pull(name, tmp_path, endpoint_url="http://127.0.0.1:9") == model
    assert fetch(s3_server, name, tmp_path, force=True).path.read_bytes() == CONTENT + b"new"


def test_a_download_that_was_killed_goes_on(s3_server: S3Server, s3_url: str, tmp_path: Path) -> None:
    name = f"{s3_url}/m.gguf"
    etag = put(s3_server, name)
    part = tmp_path / "s3" / f"{slug(name + etag)}.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT[:1000])
    done: list[int] = []
    model = pull.pull(
        name, tmp_path, endpoint_url=s3_server.endpoint_url, progress=lambda stage, at, of: done.append(at)
    )
    assert model.path.read_bytes() == CONTENT
    assert done[-1] == len(CONTENT)
    assert not part.exists()


def test_damage_is_found(s3_server: S3Server, s3_url: str, tmp_path: Path) -> None:
    name = f"{s3_url}/m.gguf"
    put(s3_server, name, Metadata={"sha256": "0" * 64})
    with pytest.raises(SetupError, match="arrived damaged"):
        fetch(s3_server, name, tmp_path)
    with pytest.raises(SetupError, match="not on this machine"):
        models.resolve(name, tmp_path)
    put(s3_server, name)
    path = fetch(s3_server, name, tmp_path).path
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(SetupError, match="damaged"):
        models.verify(name, tmp_path)
    assert fetch(s3_server, name, tmp_path, force=True).path.read_bytes() == CONTENT


def test_what_cannot_be_had_is_told(s3_server: S3Server, s3_url: str, tmp_path: Path) -> None:
    put(s3_server, f"{s3_url}/text.gguf", b"not what it says")
    for name, told in {
        f"{s3_url}/none.gguf": "There is no s3://",
        f"{s3_url}/text.gguf": "no GGUF file",
        "s3://no-such-bucket/m.gguf": "no-such-bucket",
    }.items():
        with pytest.raises(SetupError, match=told):
            fetch(s3_server, name, tmp_path)
    with pytest.raises(SetupError, match="cannot be used"):
        pull.pull(f"{s3_url}/m.gguf", tmp_path, endpoint_url="http://127.0.0.1:9")


def test_names_in_a_bucket() -> None:
    assert parse("s3://b/a/My.gguf") == InBucket("my", "b", "a/My.gguf")
    assert parse("org/m=s3://b/m.GGUF") == InBucket("org/m", "b", "m.GGUF")
    for name in ("s3://", "s3://b", "s3://b/m.safetensors", "s3:///m.gguf", "a b=s3://b/m.gguf"):
        with pytest.raises(SetupError):
            parse(name)
