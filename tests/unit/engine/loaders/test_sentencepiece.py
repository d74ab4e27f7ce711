"""SentencePiece vocabularies as `tokenizers` reads them, against the algorithm as its paper tells it, step by step."""

import json
import os
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engine.errors import ModelFileError
from engine.loaders import open_model
from engine.loaders.metadata import Metadata
from engine.loaders.vocabulary import tokenizer_json
from engine.loaders.vocabulary.document import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED

GEMMA = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "headrace/models/gemma-3-270m.gguf"
LETTERS = "▁abcdé"
WORDS = ("ab", "abc", "▁a", "▁ab", "bc", "ca", "cab", "aa", "aaa", "▁▁", "▁▁▁", "dé", "édé", "da", "abca", "bb")


def fields(*, prefix: bool, user_defined: tuple[str, ...] = ()) -> dict[str, object]:
    """A header's keys for a small vocabulary; the words' scores fall in the order above."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    specials = ["<unk>", "<s>", "</s>"]
    tokens = [*specials, *byte_tokens, *user_defined, *WORDS, *LETTERS]
    ranked = len(WORDS) + len(LETTERS)
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[USER_DEFINED] * len(user_defined), *[NORMAL] * ranked]
    scores = [0.0] * (len(tokens) - ranked) + [-float(place) for place in range(ranked)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.array(scores, dtype=np.float32),
        "tokenizer.ggml.token_type": np.array(kinds, dtype=np.int32),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.add_space_prefix": prefix,
    }


@cache
def small(prefix: bool, user_defined: tuple[str, ...] = ()) -> tuple[Tokenizer, dict[str, float]]:
    """The tokenizer, and the scores of its normal pieces."""
    header = fields(prefix=prefix, user_defined=user_defined)
    tokens, scores, kinds = (header[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type"))
    assert isinstance(tokens, list)
    assert isinstance(scores, np.ndarray)
    assert isinstance(kinds, np.ndarray)
    text, adds_bos = tokenizer_json(Metadata(header, Path("small.gguf")), len(tokens))
    assert adds_bos
    return Tokenizer.from_str(text), normal_pieces(tokens, scores.tolist(), kinds.tolist())


def normal_pieces(tokens: list[str], scores: list[float], kinds: list[int]) -> dict[str, float]:
    return {token: score for token, score, kind in zip(tokens, scores, kinds, strict=True) if kind == NORMAL}


def merged(text: str, scores: dict[str, float]) -> list[str]:
    """Joins the neighbours whose piece has the highest score, the leftmost of equals, until no two make one."""
    parts = list(text.replace(" ", "▁"))
    while True:
        joined = [left + right for left, right in pairwise(parts)]
        pairs = [(scores[piece], -at) for at, piece in enumerate(joined) if piece in scores]
        if not pairs:
            break
        at = -max(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    as_bytes = [[part] if part in scores else [f"<0x{byte:02X}>" for byte in part.encode()] for part in parts]
    return [token for tokens in as_bytes for token in tokens]


TEXTS = st.text(alphabet=" abcdéx\n🚀", max_size=40)


@given(TEXTS, st.booleans())
@settings(deadline=None)
def test_pieces_are_joined_by_their_scores(text: str, prefix: bool) -> None:
    tokenizer, scores = small(prefix)
    encoded = tokenizer.encode(text, add_special_tokens=False)
    assert encoded.tokens == merged((" " if prefix and text else "") + text, scores)
    assert tokenizer.decode(encoded.ids) == text


def test_a_prompt_begins_with_the_start_token_and_control_tokens_are_hidden() -> None:
    tokenizer, _ = small(prefix=True)
    assert tokenizer.encode("abc").tokens == ["<s>", "▁", "abc"]
    assert tokenizer.encode("abc</s>abc").tokens == ["<s>", "▁", "abc", "</s>", "▁", "abc"]
    assert tokenizer.decode(tokenizer.encode("abc</s>").ids) == "abc"


def test_bytes_are_not_read_out_of_text() -> None:
    tokenizer, _ = small(prefix=False)
    assert "<0x61>" not in tokenizer.encode("<0x61>").tokens


def test_what_a_user_defined_is_taken_whole_before_all_merges() -> None:
    tokenizer, _ = small(prefix=False, user_defined=("  ", "\n"))
    encoded = tokenizer.encode("ab  ab\n a", add_special_tokens=False)
    assert encoded.tokens == ["ab", "  ", "ab", "\n", "▁a"]
    assert tokenizer.decode(encoded.ids) == "ab  ab\n a"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokenizer.ggml.scores", np.zeros(3, dtype=np.float32)),
        ("tokenizer.ggml.scores", np.zeros(3, dtype=np.int32)),
        ("tokenizer.ggml.scores", None),
        ("tokenizer.ggml.token_type", np.zeros(3, dtype=np.int32)),
        ("tokenizer.ggml.tokens", ["a" * 600]),
        ("tokenizer.ggml.unknown_token_id", 10_000),
        ("tokenizer.ggml.add_space_prefix", 3),
    ],
)
def test_a_vocabulary_that_contradicts_itself_is_refused(key: str, value: object) -> None:
    header = fields(prefix=True) | {key: value}
    tokens = header["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    with pytest.raises(ModelFileError) as caught:
        tokenizer_json(Metadata(header, Path("small.gguf")), len(tokens))
    assert caught.value.code == "model_file_corrupt"


def test_pieces_that_make_endless_merges_are_refused() -> None:
    """A megabyte of them would make a tokenizer a hundred times as long."""
    tokens = [letter * count for letter in "abcd" for count in range(1, 250)]
    header = fields(prefix=True) | {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.zeros(len(tokens), dtype=np.float32),
        "tokenizer.ggml.token_type": np.ones(len(tokens), dtype=np.int32),
    }
    with pytest.raises(ModelFileError, match="characters"):
        tokenizer_json(Metadata(header, Path("small.gguf")), len(tokens))


@pytest.mark.real_model
@pytest.mark.skipif(not GEMMA.exists(), reason="needs gemma-3-270m.gguf in the models folder")
def test_gemma_reads_as_its_scores_say() -> None:
    with open_model(GEMMA) as opened:
        described = opened.describe()
    tokenizer = Tokenizer.from_str(described.tokenizer_json)
    document = json.loads(described.tokenizer_json)
    ids: dict[str, int] = document["model"]["vocab"]
    special = {token["content"] for token in document["added_tokens"]}
    # Its normal pieces stand in the order of their scores, which end with the single characters.
    scores = {token: -float(index) for token, index in ids.items() if token not in special and token[:3] != "<0x"}
    for text in (
        "The quick brown fox jumps over the lazy dog; it cost 1,234.50 dollars (or so).",
        "Grüße aus Köln, привет из Москвы, 北京欢迎你, नमस्ते दुनिया, 🚀🤽",
        "def f(x):\treturn [x**2 for _ in range(10)]",
        "\ue000\U0010fffd unassigned",
    ):
        encoded = tokenizer.encode(text, add_special_tokens=False)
        wanted = [part for piece in text.split("\t") for part in ("\t", *merged(piece, scores))][1:]
        assert encoded.tokens == wanted
        assert tokenizer.decode(encoded.ids) == text
    assert tokenizer.encode("<start_of_turn>user\n\nhi<end_of_turn>").ids == [2, 105, 2364, 108, 2202, 106]
    assert described.bos_id == 2
    assert described.eos_ids == (1, 106)
