"""What a model file says of itself, and that its tokenizer is the one it was made with."""

import hashlib
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from engine.loaders import ModelDescription, describe
from headrace.models import CATALOGUE, DEFAULT_MODEL, path_of
from headrace.settings import PathSettings
from tests.tiny_model import CHAT_TEMPLATE, IM_END, IM_START, VOCAB_SIZE, llama_metadata, write_gguf
from tests.tiny_model import random_llama_tensors as tensors

SIZES = {"hidden_size": 8, "ffn_size": 8, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1}
ODD_TEXTS = (
    "",
    "plain",
    "  two  spaces\n\n\ttab ",
    "1234567890 3.14",
    "naïve Ünïcode",
    "日本語とかな",
    "🙂👩‍👩‍👧 e\u0301 \u200b\ufeff",
    "\x00\x01\x7f",
    "don't I'll we've",
    "\r\n\r",
)


@pytest.fixture(scope="module")
def real() -> ModelDescription:
    path = path_of(CATALOGUE[DEFAULT_MODEL], PathSettings().models_dir)
    if not path.exists():
        pytest.skip("the model file is not here; `make test` fetches it")
    return describe(path)


def test_the_tiny_model_as_it_was_written(tiny: Path) -> None:
    model = describe(tiny)
    assert (model.architecture, model.name, model.vocab_size, model.context_length) == (
        "llama",
        "tiny",
        VOCAB_SIZE,
        512,
    )
    assert (model.shape.hidden_size, model.shape.num_layers, model.shape.head_dim) == (64, 2, 16)
    assert (model.shape.num_heads, model.shape.num_kv_heads) == (4, 2)
    assert model.eos_ids[0] == IM_END
    assert set(model.eos_ids) == {IM_END, 256}
    assert (model.bos_id, model.add_bos, model.chat_template) == (IM_START, False, CHAT_TEMPLATE)
    assert model.revision == hashlib.sha256(tiny.read_bytes()).hexdigest()
    assert model.file_bytes == tiny.stat().st_size
    assert model.kv_bytes_per_token == 2 * 2 * 2 * (64 + 4)
    assert describe(tiny) == model


def test_every_byte_of_the_tiny_model_is_its_own_token(tiny: Path) -> None:
    tokenizer = Tokenizer.from_str(describe(tiny).tokenizer_json)
    for text in ODD_TEXTS:
        ids = tokenizer.encode(text).ids
        assert ids == list(text.encode())
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("add", [False, True])
def test_a_start_token_is_put_first_only_where_the_file_asks(tmp_path: Path, add: bool) -> None:
    metadata = llama_metadata(name="m", context_length=16, **SIZES) | {"tokenizer.ggml.add_bos_token": add}
    model = describe(write_gguf(tmp_path / "m.gguf", metadata, tensors(0, **SIZES)))
    tokenizer = Tokenizer.from_str(model.tokenizer_json)
    first = [IM_START] if add else []
    assert model.add_bos is add
    assert tokenizer.encode("hi").ids == [*first, *b"hi"]
    assert tokenizer.encode("hi", "ho").ids == [*first, *b"hi", *first, *b"ho"]
    assert tokenizer.encode("hi", add_special_tokens=False).ids == list(b"hi")
    assert tokenizer.decode(tokenizer.encode("hi").ids) == "hi"


def test_no_start_token_where_the_file_names_none(tmp_path: Path) -> None:
    metadata = llama_metadata(name="m", context_length=16, **SIZES) | {"tokenizer.ggml.add_bos_token": True}
    del metadata["tokenizer.ggml.bos_token_id"]
    model = describe(write_gguf(tmp_path / "m.gguf", metadata, tensors(0, **SIZES)))
    assert model.bos_id is None
    assert Tokenizer.from_str(model.tokenizer_json).encode("hi").ids == list(b"hi")


@pytest.mark.real_model
def test_the_real_model_is_the_one_of_the_catalogue(real: ModelDescription) -> None:
    assert real.revision == CATALOGUE[DEFAULT_MODEL].sha256
    assert (real.architecture, real.vocab_size, real.context_length) == ("llama", 49_152, 8192)
    assert (real.shape.hidden_size, real.shape.num_layers, real.shape.head_dim) == (576, 30, 64)
    assert real.parameter_count == 134_515_008
    assert not real.add_bos


@pytest.mark.real_model
def test_the_real_tokenizer_gives_every_text_back(real: ModelDescription) -> None:
    tokenizer = Tokenizer.from_str(real.tokenizer_json)
    for text in ODD_TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert len(tokenizer.encode("<|im_start|>").ids) == 1
    assert tokenizer.encode("<|im_end|>").ids == [real.eos_ids[0]]
    assert tokenizer.encode("2024").ids == [tokenizer.token_to_id(digit) for digit in "2024"]
