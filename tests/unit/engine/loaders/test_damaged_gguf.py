"""Damaged model files: whatever is cut off or flipped, the error is ModelFileError and memory stays small."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from engine import EngineConfig, ModelFileError
from engine.loaders import describe, open_model
from engine.loaders.gguf import GGUFFile
from engine.sizing import cache_size
from tests.tiny_model import VOCAB_SIZE, llama_metadata, random_llama_tensors, write_gguf
from tests.unit.engine.loaders.reading import read_all, survives

SIZES = {"hidden_size": 8, "ffn_size": 8, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1}
FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model as small as they come, about 25 kB."""
    metadata = llama_metadata(name="mite", context_length=16, **SIZES)
    path = write_gguf(tmp_path_factory.mktemp("mite") / "mite.gguf", metadata, random_llama_tensors(0, **SIZES))
    return path.read_bytes()


@pytest.fixture(scope="module")
def header_bytes(file: bytes, tmp_path_factory: pytest.TempPathFactory) -> int:
    path = tmp_path_factory.mktemp("header") / "mite.gguf"
    path.write_bytes(file)
    with GGUFFile(path) as opened:
        return min(tensor.offset for tensor in opened.tensors.values())


def taken(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    return survives(path)


def test_the_file_is_good_as_it_is(file: bytes, tmp_path: Path) -> None:
    assert taken(tmp_path / "m.gguf", file)


@given(st.data())
@FUZZ
def test_a_file_that_is_cut_off_is_refused(file: bytes, tmp_path: Path, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(file) - 32))  # the last tensor may end with padding
    assert not taken(tmp_path / "m.gguf", file[:length])


@given(st.data())
@FUZZ
def test_flipped_bytes_are_refused_or_harmless(
    file: bytes, header_bytes: int, tmp_path: Path, data: st.DataObject
) -> None:
    damaged = bytearray(file)
    places = st.one_of(st.integers(0, header_bytes - 1), st.integers(0, 400), st.integers(0, len(file) - 1))
    for at in data.draw(st.lists(places, min_size=1, max_size=4)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    assume(damaged != file)
    taken(tmp_path / "m.gguf", bytes(damaged))


@given(st.data())
@FUZZ
def test_absurd_numbers_are_refused_or_harmless(
    file: bytes, header_bytes: int, tmp_path: Path, data: st.DataObject
) -> None:
    """Lengths, counts and offsets of the header at their worst."""
    at = data.draw(st.integers(4, header_bytes - 8))
    number = data.draw(st.sampled_from([0, 1, 2**16, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]))
    taken(tmp_path / "m.gguf", file[:at] + struct.pack("<Q", number) + file[at + 8 :])


@given(st.binary(max_size=200))
@FUZZ
def test_any_bytes_after_the_magic_are_refused(tmp_path: Path, tail: bytes) -> None:
    assert not taken(tmp_path / "m.gguf", b"GGUF" + struct.pack("<I", 3) + tail)


CHANGES: list[tuple[str, object, str]] = [
    ("general.architecture", "mamba", "model_unsupported"),
    ("general.architecture", 3, "model_file_corrupt"),
    ("tokenizer.ggml.model", "bert", "model_unsupported"),
    ("tokenizer.ggml.model", "llama", "model_file_corrupt"),
    ("tokenizer.ggml.pre", "unheard-of", "model_unsupported"),
    ("tokenizer.ggml.tokens", ["a"], "model_file_corrupt"),
    ("tokenizer.ggml.tokens", ["a"] * VOCAB_SIZE, "model_file_corrupt"),
    ("tokenizer.ggml.merges", ["nospace"], "model_file_corrupt"),
    ("tokenizer.ggml.token_type", [1], "model_file_corrupt"),
    ("tokenizer.ggml.eos_token_id", VOCAB_SIZE, "model_file_corrupt"),
    ("tokenizer.ggml.bos_token_id", VOCAB_SIZE, "model_file_corrupt"),
    ("llama.rope.scaling.type", "yarn", "model_unsupported"),
    ("llama.rope.dimension_count", 2, "model_unsupported"),
    ("llama.expert_count", 8, "model_unsupported"),
    ("llama.final_logit_softcapping", 30.0, "model_unsupported"),
    ("llama.attention.value_length", 2, "model_unsupported"),
    ("split.count", 3, "model_unsupported"),
    ("llama.attention.head_count", 3, "model_file_corrupt"),
    ("llama.attention.head_count_kv", 4, "model_file_corrupt"),
    ("llama.embedding_length", 16, "model_file_corrupt"),
    ("llama.feed_forward_length", 16, "model_file_corrupt"),
    ("llama.block_count", 2, "model_file_corrupt"),
    ("llama.context_length", 0, "model_file_corrupt"),
    ("llama.attention.layer_norm_rms_epsilon", -1.0, "model_file_corrupt"),
]


@pytest.mark.parametrize(("key", "value", "code"), CHANGES, ids=lambda value: str(value)[:24])
def test_metadata_that_cannot_be_is_refused_with_its_code(tmp_path: Path, key: str, value: object, code: str) -> None:
    metadata = llama_metadata(name="mite", context_length=16, **SIZES) | {key: value}
    path = write_gguf(tmp_path / "m.gguf", metadata, random_llama_tensors(0, **SIZES))
    with pytest.raises(ModelFileError) as caught:
        read_all(path)
    assert caught.value.code == code


def test_tensors_that_share_bytes_are_refused(file: bytes, tmp_path: Path) -> None:
    name = b"output_norm.weight"
    at = file.index(name) + len(name) + 4 + 8 + 4  # behind dimensions, shape and type
    assert not taken(tmp_path / "m.gguf", file[:at] + struct.pack("<Q", 0) + file[at + 8 :])


def test_a_tensor_that_no_layer_asks_for_is_refused(tmp_path: Path) -> None:
    tensors = random_llama_tensors(0, **SIZES) | {"blk.0.attn_output.bias": np.zeros(8, dtype=np.float32)}
    path = write_gguf(tmp_path / "m.gguf", llama_metadata(name="mite", context_length=16, **SIZES), tensors)
    with pytest.raises(ModelFileError, match=r"attn_output\.bias") as caught:
        read_all(path)
    assert caught.value.code == "model_unsupported"


def test_a_pipe_in_the_place_of_a_file_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.gguf")
    assert not survives(tmp_path / "m.gguf")


@pytest.mark.parametrize("factors", [[1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, -2.0]])
def test_divisors_of_angles_that_cannot_be_are_refused(tmp_path: Path, factors: list[float]) -> None:
    tensors = random_llama_tensors(0, **SIZES) | {"rope_freqs.weight": np.array(factors, dtype=np.float32)}
    write_gguf(tmp_path / "m.gguf", llama_metadata(name="mite", context_length=16, **SIZES), tensors)
    assert not survives(tmp_path / "m.gguf")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    tensors = random_llama_tensors(0, **SIZES)
    tensors["blk.0.ffn_up.weight"][3, 3] = float("nan")
    path = write_gguf(tmp_path / "m.gguf", llama_metadata(name="mite", context_length=16, **SIZES), tensors)
    with pytest.raises(ModelFileError, match=r"blk\.0\.ffn_up\.weight"):
        read_all(path)


def test_a_folder_or_nothing_is_no_model(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(ModelFileError) as caught:
            describe(path)
        assert caught.value.code == "model_file_missing"


def test_tables_are_made_for_what_the_pages_hold_not_for_what_a_header_claims(file: bytes, tmp_path: Path) -> None:
    """One flipped byte makes 16 tokens of context sixteen million."""
    config = EngineConfig(with_context(file, tmp_path, (1 << 24) - 1), device="cpu", num_pages=1)
    with open_model(config.model) as opened:
        assert opened.shape.context_length == (1 << 24) - 1
        assert cache_size(config, opened.shape).max_context == config.page_size


def test_a_context_whose_tables_outweigh_the_model_is_refused(file: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="context of 134217727 tokens"):
        read_all(with_context(file, tmp_path, (1 << 27) - 1))


def with_context(file: bytes, folder: Path, tokens: int) -> Path:
    key = b"llama.context_length"
    at = file.index(key) + len(key) + 4
    (folder / "m.gguf").write_bytes(file[:at] + struct.pack("<I", tokens) + file[at + 4 :])
    return folder / "m.gguf"


HOSTILE: list[tuple[str, object, str]] = [
    ("llama.expert_count", [0, 0], "a collection of 2"),
    ("general.alignment", [32] * 300, "a collection of 300"),
    ("general.alignment", "\x1b[2J" * 9999, "power of two"),
    ("llama.rope.freq_base", float("nan"), "is nan"),
    ("llama.attention.sliding_window", 0, "sliding_window"),
    ("tokenizer.ggml.scores", [0.5] * 3, "scores"),
    ("tokenizer.chat_template", "x" * (1 << 20) + "x", "1048576 are read"),
    ("tokenizer.ggml.merges", ["a a"] * ((1 << 20) + 1), "room for"),
]


@pytest.mark.parametrize(("key", "value", "why"), HOSTILE, ids=lambda value: str(value)[:24])
def test_what_a_header_cannot_say_is_refused_on_one_short_line(
    tmp_path: Path, key: str, value: object, why: str
) -> None:
    metadata = llama_metadata(name="mite", context_length=16, **SIZES) | {key: value}
    if key == "tokenizer.ggml.scores":
        metadata["tokenizer.ggml.model"] = "llama"
    path = write_gguf(tmp_path / "m.gguf", metadata, random_llama_tensors(0, **SIZES))
    with pytest.raises(ModelFileError, match=why) as caught:
        read_all(path)
    assert len(str(caught.value)) < 1500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", [0, 6, 8, 12])
def test_a_header_with_holes_is_not_read_to_their_end(tmp_path: Path, kind: int) -> None:
    """A file of a gigabyte that takes no room on the disk, whose header says that all of it is one list."""
    with (tmp_path / "m.gguf").open("wb") as sparse:
        sparse.write(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"x" + struct.pack("<IIQ", 9, kind, 100 << 20))
        sparse.truncate(1 << 30)
    assert not survives(tmp_path / "m.gguf")


def test_a_name_is_one_line_of_what_can_be_printed(tmp_path: Path) -> None:
    metadata = llama_metadata(name="\x1b[2J mi\nte " + "x" * 999, context_length=16, **SIZES)
    name = describe(write_gguf(tmp_path / "m.gguf", metadata, random_llama_tensors(0, **SIZES))).name
    assert name.startswith("[2J mi te xxx")
    assert len(name) <= 200
