"""Damaged Hugging Face folders: whatever lies in them, the error is ModelFileError and memory stays small."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import ModelFileError
from engine.loaders import describe
from tests.unit.engine.loaders.checkpoints import random_model, write_checkpoint
from tests.unit.engine.loaders.reading import read_all, survives

FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
INDEX, SHARD = "model.safetensors.index.json", "model-00002-of-00005.safetensors"
ODD: list[object] = [None, True, -1, 0, 1, 7, 1 << 24, 1 << 63, 10**400, 1e-300, 1e300, "", "linear", [], [[]], {}, [0]]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A sharded Gemma 3, for it has the longest config. File name -> bytes."""
    folder = write_checkpoint(random_model("gemma3"), tmp_path_factory.mktemp("good"), max_shard_size="80KB")
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    assert {SHARD, INDEX, "config.json", "tokenizer.json", "generation_config.json"} <= set(files)
    return files


@pytest.fixture
def folder(good: dict[str, bytes], tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    restore(good, folder)
    return folder


def restore(good: dict[str, bytes], folder: Path) -> None:
    for name, data in good.items():
        (folder / name).write_bytes(data)


def changed(good: dict[str, bytes], folder: Path, name: str, data: bytes) -> bool:
    """Whether the folder is still taken with this file in the place of the good one."""
    (folder / name).write_bytes(data)
    try:
        return survives(folder)
    finally:
        (folder / name).write_bytes(good[name])


def header_of(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<Q", data)
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    return header


def with_header(data: bytes, header: object) -> bytes:
    (length,) = struct.unpack_from("<Q", data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def test_the_folder_is_good_as_it_is(folder: Path) -> None:
    assert survives(folder)


@given(st.data())
@FUZZ
def test_a_file_that_is_cut_off_is_refused(good: dict[str, bytes], folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in good if not name.endswith(".jinja")]))
    whole = good[name].rstrip()
    length = data.draw(st.integers(0, len(whole) - 1))
    assert not changed(good, folder, name, whole[:length])


@given(st.data())
@FUZZ
def test_flipped_bytes_are_refused_or_harmless(good: dict[str, bytes], folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(good)))
    damaged = bytearray(good[name])
    for at in data.draw(st.lists(st.integers(0, min(len(damaged), 3000) - 1), min_size=1, max_size=4)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    changed(good, folder, name, bytes(damaged))


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
@given(data=st.data())
@FUZZ
def test_absurd_entries_are_refused_or_harmless(
    good: dict[str, bytes], folder: Path, name: str, data: st.DataObject
) -> None:
    document: Any = json.loads(good[name])
    at, key = document, data.draw(st.sampled_from(sorted(document)))
    while isinstance(at[key], dict) and at[key] and data.draw(st.booleans()):
        at, key = at[key], data.draw(st.sampled_from(sorted(at[key])))
    at[key] = data.draw(st.sampled_from(ODD))
    changed(good, folder, name, json.dumps(document).encode())


@given(data=st.data())
@FUZZ
def test_absurd_headers_are_refused(good: dict[str, bytes], folder: Path, data: st.DataObject) -> None:
    header = header_of(good[SHARD])
    name = data.draw(st.sampled_from(sorted(set(header) - {"__metadata__"})))
    field = data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
    odd = st.sampled_from([*ODD, "I64", "F16", "F128", [1 << 62, 1 << 62], [-1, 3], [3, 1], [0, 0], [0.5, 1]])
    before, header[name][field] = header[name][field], data.draw(odd)
    if header[name][field] != before:
        assert not changed(good, folder, SHARD, with_header(good[SHARD], header))


LENGTHS = [0, 1, 7, 1 << 20, 10 << 30, (1 << 63) - 1, (1 << 64) - 1]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_header_longer_than_it_is_costs_no_memory(good: dict[str, bytes], folder: Path, length: int) -> None:
    assert not changed(good, folder, SHARD, struct.pack("<Q", length) + good[SHARD][8:])


def test_a_header_beyond_reason_is_refused_unread(folder: Path) -> None:
    with (folder / SHARD).open("wb") as file:
        file.write(struct.pack("<Q", 1 << 30) + b"{")
        file.truncate((1 << 30) + 8)
    assert not survives(folder)


def overlapping(header: dict[str, Any]) -> None:
    first, second = sorted((set(header) - {"__metadata__"}), key=lambda name: header[name]["data_offsets"][0])[:2]
    header[second] = header[first]


def renamed(header: dict[str, Any]) -> None:
    header["model.layers.0.mlp.extra.weight"] = header.pop(next(name for name in header if name != "__metadata__"))


@pytest.mark.parametrize("damage", [overlapping, renamed])
def test_tensors_that_overlap_or_have_other_names_are_refused(
    good: dict[str, bytes], folder: Path, damage: Any
) -> None:
    header = header_of(good[SHARD])
    damage(header)
    assert not changed(good, folder, SHARD, with_header(good[SHARD], header))


@pytest.mark.parametrize("shard", ["../model/" + SHARD, "/etc/passwd", "none.safetensors", "a\0.safetensors", "..", 3])
def test_an_index_that_leads_elsewhere_is_refused(good: dict[str, bytes], folder: Path, shard: object) -> None:
    index = json.loads(good[INDEX])
    index["weight_map"]["model.norm.weight"] = shard
    assert not changed(good, folder, INDEX, json.dumps(index).encode())


@pytest.mark.parametrize("weight_map", [{}, None, [], {"no.such.tensor": SHARD}])
def test_an_index_that_does_not_fit_its_shards_is_refused(
    good: dict[str, bytes], folder: Path, weight_map: object
) -> None:
    assert not changed(good, folder, INDEX, json.dumps({"weight_map": weight_map}).encode())
    if isinstance(weight_map, dict) and weight_map:
        added = json.loads(good[INDEX])["weight_map"] | weight_map
        assert not changed(good, folder, INDEX, json.dumps({"weight_map": added}).encode())


def test_a_shard_that_is_missing_is_named(folder: Path) -> None:
    (folder / SHARD).unlink()
    with pytest.raises(ModelFileError, match=SHARD) as caught:
        read_all(folder)
    assert caught.value.code == "model_file_missing"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", INDEX])
def test_a_folder_without_one_of_its_files_says_which(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFileError, match=name) as caught:
        describe(folder)
    assert caught.value.code == "model_file_missing"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", SHARD])
def test_a_pipe_in_the_place_of_a_file_blocks_nobody(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert not survives(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1, "a": 2}', "1" * 5000, "\xff", "[]", "{", '{"a": NaN'])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", INDEX])
def test_what_is_no_proper_json_is_refused(good: dict[str, bytes], folder: Path, name: str, text: str) -> None:
    assert not changed(good, folder, name, text.encode("latin-1"))


@pytest.mark.parametrize(
    "merge", ["a", "a b c", ["", "a"], ["a", ""], ["a", "no such"], ["a", "b"], ["a", 3], "", None, {"a": "b"}]
)
def test_merges_that_lead_nowhere_are_refused(good: dict[str, bytes], folder: Path, merge: object) -> None:
    """Of the merges here ("a", "b") would make a token that is not there, and ("", "a") would make "a" of itself."""
    tokenizer = json.loads(good["tokenizer.json"])
    tokenizer["model"]["merges"] = [merge]
    assert not changed(good, folder, "tokenizer.json", json.dumps(tokenizer).encode())


@pytest.mark.parametrize("also_in_vocabulary", [False, True])
def test_added_tokens_that_no_row_was_made_for_are_left_out(
    good: dict[str, bytes], folder: Path, also_in_vocabulary: bool
) -> None:
    tokenizer = json.loads(good["tokenizer.json"])
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 259, "content": "<image>"})
    if also_in_vocabulary:
        tokenizer["model"]["vocab"]["<image>"] = 259
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    kept = json.loads(describe(folder).tokenizer_json)
    assert [token["id"] for token in kept["added_tokens"]] == [256, 257, 258]
    assert "<image>" not in kept["model"]["vocab"]


def test_a_token_beyond_the_embedding_is_refused(good: dict[str, bytes], folder: Path) -> None:
    tokenizer = json.loads(good["tokenizer.json"])
    tokenizer["model"]["vocab"]["no row"] = 259
    assert not changed(good, folder, "tokenizer.json", json.dumps(tokenizer).encode())


CUT = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 4}
FILLED = {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}


def test_a_prompt_is_neither_cut_nor_filled_up_as_texts_of_training_were(good: dict[str, bytes], folder: Path) -> None:
    tokenizer = json.loads(good["tokenizer.json"])
    expected = describe(folder).tokenizer_json
    changed_by_training = tokenizer | {"truncation": CUT, "padding": FILLED | {"pad_token": "a"}}
    (folder / "tokenizer.json").write_text(json.dumps(changed_by_training))
    assert json.loads(describe(folder).tokenizer_json) == json.loads(expected)


def around(index: object) -> list[dict[str, object]]:
    """Ways to put a token in front of every text."""
    template: dict[str, object] = {
        "type": "TemplateProcessing", "pair": [], "single": [{"SpecialToken": {"id": "q", "type_id": 0}}],
        "special_tokens": {"q": {"id": "q", "ids": [index], "tokens": ["q"]}},
    }  # fmt: skip
    bert: dict[str, object] = {"type": "BertProcessing", "sep": ["q", 1], "cls": ["q", index]}
    return [template, bert, {"type": "Sequence", "processors": [bert]}]


@pytest.mark.parametrize("way", range(3))
def test_what_is_put_around_a_text_has_rows_in_the_embedding(good: dict[str, bytes], folder: Path, way: int) -> None:
    tokenizer = json.loads(good["tokenizer.json"])
    for index, is_taken in ((258, True), (259, False), (-1, False), ("1", False)):
        document = tokenizer | {"post_processor": around(index)[way]}
        assert changed(good, folder, "tokenizer.json", json.dumps(document).encode()) == is_taken


def test_a_file_that_a_system_makes_up_as_it_is_read_does_not_keep_anybody_waiting(folder: Path) -> None:
    endless = Path("/proc/kmsg")
    if not endless.exists():
        pytest.skip("this system has no such file")
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").symlink_to(endless)
    survives(folder)


@pytest.mark.parametrize("name", ["chat_template.jinja", "generation_config.json", INDEX, SHARD])
def test_a_device_in_the_place_of_a_file_is_not_read(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(ModelFileError, match="no plain file"):
        read_all(folder)


@pytest.mark.parametrize("odd", ['"\\ud800"', '{"\\uDFFF": 1}', "NaN", "-Infinity", "1e999"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_what_no_other_reader_takes_for_json_is_refused(
    good: dict[str, bytes], folder: Path, name: str, odd: str
) -> None:
    """Half a character, and numbers that are none: they would end whoever writes the description down."""
    assert not changed(good, folder, name, good[name].rstrip()[:-1] + f', "odd": {odd}}}'.encode())


@pytest.mark.parametrize("token", [{"id": 65}, {"content": "A"}, {"id": 257}])
def test_added_tokens_whose_ids_are_taken_are_refused(
    good: dict[str, bytes], folder: Path, token: dict[str, object]
) -> None:
    tokenizer = json.loads(good["tokenizer.json"])
    tokenizer["added_tokens"][0] |= token
    assert not changed(good, folder, "tokenizer.json", json.dumps(tokenizer).encode())


def test_more_values_than_any_tokenizer_has_are_refused_unread(good: dict[str, bytes], folder: Path) -> None:
    assert not changed(good, folder, "tokenizer.json", b'{"a":[' + b"[]," * (2 << 20) + b"[]]}")


def test_a_template_among_several_is_bounded_too(good: dict[str, bytes], folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    several = [{"name": "default", "template": "x" * ((1 << 20) + 1)}]
    assert not changed(good, folder, "tokenizer_config.json", json.dumps({"chat_template": several}).encode())
