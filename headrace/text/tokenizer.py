"""One model's tokenizer: text to ids, and ids to raw bytes. Knows no model, no chat and no stream."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
import tokenizers

from headrace.contract.errors import InvalidRequest, SetupError

WORD_MARK = "▁"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A token with a meaning of its own; some swallow the white space beside them."""

    id: int
    takes_space_before: bool
    takes_space_after: bool


class Tokenizer:
    """Built from the JSON that `tokenizers` reads. Safe to share between threads: nothing changes after it is built.

    `pieces` maps an id to the bytes it shows. Ids that show nothing (special tokens, the padding of a vocabulary) are
    absent. A piece may be part of a UTF-8 character; `detokenizer` joins them.
    `strips_leading_space`: whether decoding drops one space at the start of the text (SentencePiece kinds).

    Raises SetupError for JSON that is no tokenizer, or of a kind whose pieces are not known.
    """

    def __init__(self, json_text: str) -> None:
        self._json_text = json_text
        try:
            self._encoder = tokenizers.Tokenizer.from_str(json_text)
            layout = orjson.loads(json_text)
        except Exception as error:  # tokenizers raises bare Exception; the caller decides what a bad model means
            raise SetupError(f"The model's tokenizer cannot be read: {error}.") from error
        added = self._encoder.get_added_tokens_decoder()
        self._added = {token.content: token_id for token_id, token in added.items()}
        self.special: Mapping[str, SpecialToken] = {
            token.content: SpecialToken(token_id, token.lstrip, token.rstrip)
            for token_id, token in added.items()
            if token.special
        }
        self.special_ids = frozenset(token.id for token in self.special.values())
        unknown = layout["model"].get("unk_token")
        self._unknown_id = layout["model"].get("unk_id") if unknown is None else self._encoder.token_to_id(unknown)
        vocab = self._encoder.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocab.values()) + 1
        decoders = tuple(_flat(layout.get("decoder")))
        self.strips_leading_space = any(_strips(decoder) for decoder in decoders)
        self.pieces: Mapping[int, bytes] = self._bytes_of(vocab, {decoder["type"] for decoder in decoders})
        self.longest_token = max(len(text.encode()) for text in vocab)
        """Bytes of the longest token as it is written: what one id can stand for at most."""

    def encode(self, text: str, *, special: bool) -> tuple[int, ...]:
        """Ids of a part of a prompt.

        `special`: whether special tokens written in the text are read as such. Without it none of their ids can be in
        the answer: where a vocabulary has no other way to write the text, InvalidRequest is raised.
        """
        # The batch call gives the GIL back while it works; the single one keeps it.
        encoder = self._encoder if special else self._plain_encoder
        ids = tuple(encoder.encode_batch_fast([text], add_special_tokens=False)[0].ids)
        if not special and self.counts_special(ids):
            raise InvalidRequest("The text spells a special token that this model's tokenizer cannot write otherwise.")
        return ids

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        """Ids of a raw prompt: its author speaks to the model directly, so special tokens are read as such, and the
        tokenizer adds what it puts around a whole prompt (BOS, for most that have one)."""
        return tuple(self._encoder.encode_batch_fast([text], add_special_tokens=True)[0].ids)

    def counts_special(self, ids: tuple[int, ...]) -> int:
        """How many of these ids are special tokens; the one for unknown text is not counted."""
        if self.special_ids.isdisjoint(ids):
            return 0
        return sum(1 for token_id in ids if token_id in self.special_ids and token_id != self._unknown_id)

    def token(self, token_id: int | None) -> str:
        """A token as it is written in templates; empty when there is none."""
        return "" if token_id is None else self._encoder.id_to_token(token_id) or ""

    def written(self, token_id: int) -> bytes:
        """The bytes of one id by itself: what it shows, or for a special token its own name. Empty for an id without
        a token."""
        shown = self.pieces.get(token_id)
        return self.token(token_id).encode() if shown is None else shown

    def prompt_pieces(self, ids: Sequence[int]) -> list[bytes]:
        """What each id of a prompt adds to its text; joined they are what the model read.

        Special tokens are as their author wrote them. Those that the tokenizer itself puts in front of a prompt, and
        the space with which some kinds begin every text, are no part of it.
        """
        added = len(self._in_front) if tuple(ids[: len(self._in_front)]) == self._in_front else 0
        pieces = [b""] * added + [self.written(token_id) for token_id in ids[added:]]
        first = next((place for place, piece in enumerate(pieces) if piece), None)
        if first is not None and self.strips_leading_space:
            pieces[first] = pieces[first].removeprefix(b" ")
        return pieces

    @cached_property
    def _in_front(self) -> tuple[int, ...]:
        """What `encode_prompt` puts before a prompt: what its ids of a text have before those of the bare text."""
        whole, bare = self.encode_prompt("a"), self.encode("a", special=True)
        at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        return whole[:at]

    @cached_property
    def _plain_encoder(self) -> tokenizers.Tokenizer:
        """A second instance, built when first needed: the switch belongs to an instance, not to a call."""
        encoder = tokenizers.Tokenizer.from_str(self._json_text)
        encoder.encode_special_tokens = True
        return encoder

    def _bytes_of(self, vocab: dict[str, int], kinds: set[str]) -> dict[int, bytes]:
        if "ByteLevel" in kinds:
            alphabet = _byte_alphabet()

            def show(token: str) -> bytes:
                try:
                    return bytes([alphabet[character] for character in token])
                except KeyError:
                    return token.encode()
        elif kinds & {"ByteFallback", "Metaspace", "Replace"}:

            def show(token: str) -> bytes:
                byte = _BYTE_TOKEN.fullmatch(token)
                return bytes.fromhex(byte[1]) if byte else token.replace(WORD_MARK, " ").encode()
        else:
            raise SetupError(f"The tokenizer decodes in a way that is not known here: {sorted(kinds) or 'none'}.")
        pieces = {token_id: show(token) for token, token_id in vocab.items() if token not in self._added}
        pieces |= {i: text.encode() for text, i in self._added.items() if i not in self.special_ids}
        return {token_id: piece for token_id, piece in pieces.items() if piece}


def _flat(decoder: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            yield from _flat(part)
    else:
        yield decoder


def _strips(decoder: dict[str, Any]) -> bool:
    if decoder["type"] == "Metaspace":
        return bool(decoder.get("prepend_scheme", "always") != "never")
    return bool(decoder["type"] == "Strip" and decoder["content"] == " " and decoder["start"] > 0)


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE writes each byte as a printable character: itself where it is one, else from U+0100 on, in order.

    Source: the GPT-2 encoder (Radford et al., 2019).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
