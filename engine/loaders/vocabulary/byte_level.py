"""Writes a GGUF file's byte-level BPE vocabulary as `tokenizers` JSON; knows that format and never tokenizes.

The JSON loads with `tokenizers.Tokenizer.from_str`. Formats: https://github.com/huggingface/tokenizers (tokenizer.json)
and llama.cpp's names of pre-tokenizers (`tokenizer.ggml.pre`).
"""

import json
from collections.abc import Callable
from typing import Final, TypeAlias

from engine.loaders.metadata import Metadata

Json: TypeAlias = dict[str, object]

_CONTROL: Final = 3  # tokenizer.ggml.token_type: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
_USER_DEFINED: Final = 4


def _byte_level(*, use_regex: bool) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _gpt2() -> Json:
    return _byte_level(use_regex=True)


def _smollm() -> Json:
    """Every digit alone, then GPT-2's split."""
    return {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _gpt2()]}


def _split_then_bytes(pattern: str) -> Json:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(use_regex=False)]}


def _llama3() -> Json:
    return _split_then_bytes(_WORDS.format(digits=r"\p{N}{1,3}"))


def _qwen2() -> Json:
    return _split_then_bytes(_WORDS.format(digits=r"\p{N}"))


_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)

PRE_TOKENIZERS: Final[dict[str, Callable[[], Json]]] = {
    "default": _gpt2,
    "gpt-2": _gpt2,
    "smollm": _smollm,
    "llama-bpe": _llama3,
    "llama3": _llama3,
    "qwen2": _qwen2,
}


def tokenizer_json(metadata: Metadata, vocab_size: int) -> str:
    """The tokenizer as JSON text.

    Raises ModelFileError for another kind of tokenizer than byte-level BPE, an unknown pre-tokenizer, and vocabularies
    that contradict themselves.
    """
    tokens = metadata.texts("tokenizer.ggml.tokens")
    if len(tokens) != vocab_size:
        raise metadata.fail(f"the vocabulary has {len(tokens)} tokens and the embedding {vocab_size} rows")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise metadata.fail("a token appears twice in the vocabulary")
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(metadata, tokens),
        "normalizer": None,
        "pre_tokenizer": _pre_tokenizer(metadata),
        "post_processor": _post_processor(metadata, tokens),
        "decoder": _byte_level(use_regex=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": metadata.text_or_none("tokenizer.ggml.pre") in ("llama-bpe", "llama3"),
            "vocab": vocabulary,
            "merges": _merges(metadata, vocabulary),
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _pre_tokenizer(metadata: Metadata) -> Json:
    kind = metadata.text("tokenizer.ggml.model")
    if kind != "gpt2":
        raise metadata.fail(f"its tokenizer is {kind!r}; only byte-level BPE ('gpt2') is read", unsupported=True)
    name = metadata.text_or_none("tokenizer.ggml.pre") or "default"
    if name not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise metadata.fail(f"its pre-tokenizer {name!r} is unknown (known: {known})", unsupported=True)
    return PRE_TOKENIZERS[name]()


def _post_processor(metadata: Metadata, tokens: list[str]) -> Json | None:
    """Puts the start token in front of a whole prompt, where the file asks for that."""
    start = metadata.token_id("tokenizer.ggml.bos_token_id", len(tokens))
    if start is None or not metadata.flag("tokenizer.ggml.add_bos_token", False):
        return None
    name = tokens[start]
    special: Json = {"SpecialToken": {"id": name, "type_id": 0}}
    first: Json = {"Sequence": {"id": "A", "type_id": 0}}
    second: Json = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [special, first],
        "pair": [special, first, {"SpecialToken": {"id": name, "type_id": 1}}, second],
        "special_tokens": {name: {"id": name, "ids": [start], "tokens": [name]}},
    }


def _added_tokens(metadata: Metadata, tokens: list[str]) -> list[Json]:
    """Control tokens are special (hidden from text); user-defined ones are matched whole but stay text."""
    if not metadata.has("tokenizer.ggml.token_type"):
        return []
    kinds = metadata.whole_numbers("tokenizer.ggml.token_type")
    if len(kinds) != len(tokens):
        raise metadata.fail(f"it gives types for {len(kinds)} of {len(tokens)} tokens")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": index, "content": tokens[index], "special": kind == _CONTROL, **flags}
        for index, kind in enumerate(kinds)
        if kind in (_CONTROL, _USER_DEFINED)
    ]


def _merges(metadata: Metadata, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Merges as pairs; each part and the merged token must be in the vocabulary, or the tokenizer would not load."""
    merges: list[tuple[str, str]] = []
    for line in metadata.texts("tokenizer.ggml.merges"):
        left, space, right = line.partition(" ")
        if not space or left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise metadata.fail(f"the merge {line[:80]!r} does not fit the vocabulary")
        merges.append((left, right))
    return merges
