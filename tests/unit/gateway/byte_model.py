"""A tokenizer whose tokens are single bytes, so that every cut of ids can fall inside a character."""

import json

from headrace.text.tokenizer import Tokenizer
from tests.tiny_model import CHAT_TEMPLATE, IM_END, SPECIAL_TOKENS, byte_tokens

__all__ = ["CHAT_TEMPLATE", "EOS", "TOKENIZER_JSON", "byte_tokenizer", "ids_of"]

EOS = IM_END


def _json() -> str:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": 256 + i, "content": token, **flags} for i, token in enumerate(SPECIAL_TOKENS)]
    vocab = {token: i for i, token in enumerate([*byte_tokens(), *SPECIAL_TOKENS])}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
        }
    )


TOKENIZER_JSON = _json()


def byte_tokenizer() -> Tokenizer:
    return Tokenizer(TOKENIZER_JSON)


def ids_of(text: str) -> tuple[int, ...]:
    """The ids that show this text: its bytes."""
    return tuple(text.encode())
