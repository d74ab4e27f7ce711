"""Fetching a model with the real huggingface_hub, from a hub of our own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import models
from headrace.cli.main import run
from headrace.contract.errors import SetupError
from headrace.models import pull
from headrace.models.hub import RemoteFile, choose
from headrace.models.names import OnHub, parse
from headrace.settings import PathSettings, Settings, WorkerSettings
from tests.hub_server import Hub, serving
from tests.tiny_model import write_tiny_model
from workers.inference.served_model import find_model

CONTENT = b"GGUF" + bytes(range(256)) * 3000
OTHER = CONTENT + b"another"
REPO = "org/Tiny-Model-GGUF"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


@pytest.fixture(autouse=True)
def nobodys_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))


def make_default(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT would, had it been set before the library was imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def fetch(hub: Hub, name: str, folder: Path, *, force: bool = False) -> models.ModelFile:
    return pull.pull(name, folder, hub_url=hub.url, force=force)


def test_the_one_gguf_of_a_repository(hub: Hub, tmp_path: Path) -> None:
    repository = hub.repository(REPO)
    repository.tags.append("license:apache-2.0")
    commit = repository.commit({"README.md": b"hello", "tiny.Q8_0.gguf": CONTENT})
    stages = set[str]()
    model = pull.pull(f"hf:{REPO}", tmp_path, hub_url=hub.url, progress=lambda stage, done, total: stages.add(stage))
    assert (model.id, model.path.read_bytes()) == ("tiny-model", CONTENT)
    assert stages == {"fetching", "checking"}
    [row] = [row for row in models.listing(tmp_path) if row.pulled]
    assert (row.name, row.revision, row.licence, row.size) == (f"hf:{REPO}@main", commit, "apache-2.0", len(CONTENT))
    assert models.verify(f"hf:{REPO}", tmp_path) == model
    asked = len(hub.requests)
    assert models.resolve(f"mine=hf:{REPO}@main", tmp_path) == models.ModelFile("mine", model.path)
    assert fetch(hub, f"hf:{REPO}", tmp_path) == model
    assert len(hub.requests) == asked, "what is here needs no network"


def test_a_name_means_what_it_meant_until_it_is_forced(hub: Hub, tmp_path: Path) -> None:
    first = hub.repository(REPO).commit({"a.gguf": CONTENT})
    assert fetch(hub, f"hf:{REPO}", tmp_path).path.read_bytes() == CONTENT
    hub.repository(REPO).commit({"a.gguf": OTHER})
    assert fetch(hub, f"hf:{REPO}", tmp_path).path.read_bytes() == CONTENT
    assert fetch(hub, f"hf:{REPO}", tmp_path, force=True).path.read_bytes() == OTHER
    assert fetch(hub, f"hf:{REPO}@{first}", tmp_path).path.read_bytes() == CONTENT


def test_a_branch_and_a_quantisation(hub: Hub, tmp_path: Path) -> None:
    hub.repository(REPO).commit({"m-Q4_K.gguf": b"GGUFno", "m-Q4_K_M.gguf": OTHER, "x/m-Q8_0.gguf": CONTENT}, "dev/1")
    assert fetch(hub, f"hf:{REPO}@dev/1:q4_k_m", tmp_path).path.read_bytes() == OTHER
    assert fetch(hub, f"hf:{REPO}@dev/1:m-Q8_0.gguf", tmp_path).path.read_bytes() == CONTENT


def test_a_download_that_is_cut_goes_on(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
    hub.repository(REPO).commit({"a.gguf": CONTENT})
    hub.cuts.append(500_000)
    assert fetch(hub, f"hf:{REPO}", tmp_path).path.read_bytes() == CONTENT
    ranges = [asked for method, path, asked in hub.requests if method == "GET" and path.startswith("/cdn/")]
    assert ranges[0] == ""
    assert int(ranges[1].removeprefix("bytes=").removesuffix("-")) > 0


def test_other_content_than_the_hub_says_is_not_installed(hub: Hub, tmp_path: Path) -> None:
    hub.repository(REPO).commit({"a.gguf": CONTENT})
    hub.lies["a.gguf"] = CONTENT[:-1] + b"?"
    with pytest.raises(SetupError, match="arrived damaged"):
        fetch(hub, f"hf:{REPO}", tmp_path)
    with pytest.raises(SetupError, match="not on this machine"):
        models.resolve(f"hf:{REPO}", tmp_path)
    hub.lies.clear()
    assert fetch(hub, f"hf:{REPO}", tmp_path).path.read_bytes() == CONTENT


def test_damage_on_the_disk_is_found_and_mended(hub: Hub, tmp_path: Path) -> None:
    hub.repository(REPO).commit({"a.gguf": CONTENT})
    path = fetch(hub, f"hf:{REPO}", tmp_path).path
    path.resolve().write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(SetupError, match="damaged") as caught:
        models.verify(f"hf:{REPO}", tmp_path)
    assert f"pull --force hf:{REPO}" in caught.value.explain()
    fetch(hub, f"hf:{REPO}", tmp_path, force=True)
    models.verify(f"hf:{REPO}", tmp_path)


def test_what_cannot_be_had_is_told_in_one_line(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repository(REPO).commit({"README.md": b""})
    hub.repository("org/text").commit({"a.gguf": b"not what it says"})
    hub.repository("org/gated").commit({"a.gguf": CONTENT})
    hub.repository("org/gated").token = "let-me-in"
    hub.repository("org/parts").commit({"a-00001-of-00002.gguf": CONTENT})
    for name, told in {
        "hf:org/none": "no repository org/none",
        f"hf:{REPO}": "no GGUF",
        f"hf:{REPO}@v9": "no revision 'v9'",
        "hf:org/text": "no GGUF file",
        "hf:org/gated": "HF_TOKEN",
        "hf:org/parts": "a part of a model",
    }.items():
        with pytest.raises(SetupError) as caught:
            fetch(hub, name, tmp_path)
        assert told in caught.value.explain()
        assert "\n" not in caught.value.explain()
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(SetupError, match="gated"):
        fetch(hub, "hf:org/gated", tmp_path)
    monkeypatch.setenv("HF_TOKEN", "let-me-in")
    assert fetch(hub, "hf:org/gated", tmp_path).path.read_bytes() == CONTENT


def test_without_a_network(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="could not be fetched from the hub") as caught:
        pull.pull("hf:org/m", tmp_path, hub_url="http://127.0.0.1:9")
    assert "HF_ENDPOINT" in caught.value.explain()


FILES = [RemoteFile(name, 1, "") for name in ("m.Q4_K.gguf", "m.Q4_K_M.gguf", "mmproj-m.gguf", "m.safetensors")]


@pytest.mark.parametrize("wanted", ["", "Q9", "m"])
def test_what_is_not_clear_lists_the_files(wanted: str) -> None:
    with pytest.raises(SetupError, match=r"m\.Q4_K\.gguf, m\.Q4_K_M\.gguf"):
        choose(FILES, OnHub("m", "org/m", "main", wanted))


@pytest.mark.parametrize(("wanted", "found"), [("Q4_K", "m.Q4_K.gguf"), ("q4_k_m", "m.Q4_K_M.gguf")])
def test_a_quantisation_is_a_whole_word(wanted: str, found: str) -> None:
    assert choose(FILES, OnHub("m", "org/m", "main", wanted)).name == found


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("hf:Org/Name-GGUF", OnHub("name", "Org/Name-GGUF")),
        ("hf:o/n@v1.0:Q4_0", OnHub("n", "o/n", "v1.0", "Q4_0")),
        ("hf:o/n:sub/file.gguf", OnHub("n", "o/n", "main", "sub/file.gguf")),
        ("org/mine=hf:o/n@a/b", OnHub("org/mine", "o/n", "a/b")),
    ],
)
def test_names_of_a_hub(name: str, meant: OnHub) -> None:
    assert parse(name) == meant


@pytest.mark.parametrize("name", ["hf:", "hf:name", "hf:o/n/x", "hf:../n", "hf:o/n@", "hf:o/n:", "a b=hf:o/n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(SetupError):
        parse(name)


def test_the_command_line(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_PATHS__MODELS_DIR", str(tmp_path / "models"))
    make_default(hub, monkeypatch)
    model = write_tiny_model(tmp_path / "tiny.gguf")
    hub.repository(REPO).commit({"tiny.gguf": model.read_bytes()})
    shown = []
    for verb in ("pull", "path", "verify", "list", "show"):
        assert run(["models", verb, *([] if verb == "list" else [f"hf:{REPO}"]), "--json"]) == 0
        shown.append(json.loads(capsys.readouterr().out))
    pulled, path, verified, listed, described = shown
    assert pulled == path == verified == {"id": "tiny-model", "path": described["path"]}
    assert [row["name"] for row in listed if row["pulled"]] == [f"hf:{REPO}@main"]
    assert (described["architecture"], described["quantization"]) == ("llama", "F32")
    assert described["capabilities"] == ["chat", "completion", "logprobs"]


def test_a_worker_fetches_what_it_is_to_run(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_default(hub, monkeypatch)
    hub.repository(REPO).commit({"tiny.gguf": CONTENT})
    settings = Settings(paths=PathSettings(models_dir=tmp_path), worker=WorkerSettings(model=f"t=hf:{REPO}"))
    found = find_model(settings)
    assert found.id == "t"
    assert Path(found.source).read_bytes() == CONTENT
