"""What every tokenizer.json has, whichever kind of merges it holds; knows that format and GGUF's keys for it.

Formats: https://github.com/huggingface/tokenizers (tokenizer.json), and llama.cpp's `tokenizer.ggml.*`.
"""

import json
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from engine.loaders.metadata import Metadata

Document: TypeAlias = dict[str, object]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # tokenizer.ggml.token_type
_MAX_TOKEN_CHARACTERS: Final = 512  # real ones have a few dozen; the work on a token grows with the square


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A GGUF header's tokens in order of their ids, with their types."""

    metadata: Metadata
    tokens: list[str]
    kinds: list[int]
    ids: dict[str, int]

    @classmethod
    def read(cls, metadata: Metadata, vocab_size: int) -> Self:
        """Raises ModelFileError unless every row of the embedding has one token, and every token one row."""
        tokens = metadata.texts("tokenizer.ggml.tokens")
        if len(tokens) != vocab_size:
            raise metadata.fail(f"the vocabulary has {len(tokens)} tokens and the embedding {vocab_size} rows")
        ids = {token: index for index, token in enumerate(tokens)}
        if len(ids) != len(tokens):
            raise metadata.fail("a token appears twice in the vocabulary")
        longest = max(map(len, tokens))
        if longest > _MAX_TOKEN_CHARACTERS:
            raise metadata.fail(f"it has a token of {longest} characters")
        kinds = [NORMAL] * len(tokens)
        if metadata.has("tokenizer.ggml.token_type"):
            kinds = metadata.whole_numbers("tokenizer.ggml.token_type", len(tokens))
        return cls(metadata, tokens, kinds, ids)


def document(
    vocabulary: Vocabulary,
    *,
    normalizer: Document | None,
    pre_tokenizer: Document | None,
    decoder: Document,
    starts: bool,
    model: Document,
) -> Document:
    """The whole of it. `starts`: whether prompts begin with the start token where the file does not say."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(vocabulary),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _post_processor(vocabulary, starts),
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary.ids,
            **model,
        },
    }


def as_text(document: Document) -> str:
    """The JSON that `tokenizers` reads."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def sequence(kind: str, steps: list[Document]) -> Document:
    """Steps one after the other; `kind` is what their list is called there."""
    return {"type": "Sequence", kind: steps}


def _added_tokens(vocabulary: Vocabulary) -> list[Document]:
    """Control tokens are special (hidden from text); user-defined ones are matched whole but stay text."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": index, "content": vocabulary.tokens[index], "special": kind == CONTROL, **flags}
        for index, kind in enumerate(vocabulary.kinds)
        if kind in (CONTROL, USER_DEFINED)
    ]


def _post_processor(vocabulary: Vocabulary, starts: bool) -> Document | None:
    """Puts the start token in front of a whole prompt, where the file asks for that."""
    metadata, tokens = vocabulary.metadata, vocabulary.tokens
    start = metadata.token_id("tokenizer.ggml.bos_token_id", len(tokens))
    if start is None or not metadata.flag("tokenizer.ggml.add_bos_token", starts):
        return None
    name = tokens[start]
    special: Document = {"SpecialToken": {"id": name, "type_id": 0}}
    first: Document = {"Sequence": {"id": "A", "type_id": 0}}
    second: Document = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [special, first],
        "pair": [special, first, {"SpecialToken": {"id": name, "type_id": 1}}, second],
        "special_tokens": {name: {"id": name, "ids": [start], "tokens": [name]}},
    }
