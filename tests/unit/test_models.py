"""Names of models and the files they mean."""

import sys
from pathlib import Path

import pytest

from headrace import models
from headrace.contract.errors import SetupError
from headrace.models import pull

CONTENT = b"GGUF" + bytes(100)
ENTRY = models.Entry("tiny", "tiny-gguf==1.0", 200, "0" * 64, len(CONTENT), "Apache-2.0")
CATALOGUE = {"tiny": ENTRY}


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "My-Model.q8.gguf"
    path.write_bytes(CONTENT)
    return path


def test_a_file_is_named_after_its_stem(gguf: Path) -> None:
    assert models.resolve(f"file:{gguf}", Path("/nowhere")) == models.ModelFile("My-Model.q8", gguf)


def test_a_file_may_be_given_a_name(gguf: Path) -> None:
    assert models.resolve(f"org/m=file:{gguf}", Path("/nowhere")).id == "org/m"


def test_a_path_may_hold_an_equals_sign(tmp_path: Path) -> None:
    path = tmp_path / "lr=3"
    path.mkdir()
    path = path / "m.gguf"
    path.write_bytes(CONTENT)
    assert models.resolve(f"file:{path}", tmp_path) == models.ModelFile("m", path)


@pytest.mark.parametrize("model_id", ["a b", "a:b", "a@b", "{a}", "-a"])
def test_an_id_must_fit_into_a_key(gguf: Path, model_id: str) -> None:
    with pytest.raises(SetupError, match="cannot be a model's id"):
        models.resolve(f"{model_id}=file:{gguf}", gguf.parent)


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("hf:org/m", "huggingface_hub", "headrace[hf]"), ("s3://bucket/m.gguf", "boto3", "headrace[s3]")],
)
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SetupError) as caught:
        pull.pull(name, tmp_path)
    assert f"pip install '{extra}'" in caught.value.explain()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no file .*gone\.gguf"):
        models.resolve(f"file:{tmp_path}/gone.gguf", tmp_path)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        models.resolve("gpt-7", tmp_path)
    assert models.DEFAULT_MODEL in caught.value.explain()


def test_a_model_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        models.resolve(models.DEFAULT_MODEL, tmp_path)
    assert f"headrace models pull {models.DEFAULT_MODEL}" in caught.value.explain()


def test_a_truncated_model_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(CONTENT[:-1])
    with pytest.raises(SetupError, match="damaged"):
        models.resolve("tiny", tmp_path, CATALOGUE)
    assert [row.pulled for row in models.listing(tmp_path, CATALOGUE)] == [False]


def test_verify_reads_the_content(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(CONTENT)
    assert models.resolve("tiny", tmp_path, CATALOGUE).path == tmp_path / "tiny.gguf"
    with pytest.raises(SetupError, match="sha256"):
        models.verify("tiny", tmp_path, CATALOGUE)


def test_no_checksum_is_pinned_for_a_file_of_ones_own(gguf: Path) -> None:
    with pytest.raises(SetupError, match="no checksum"):
        models.verify(f"file:{gguf}", gguf.parent)
