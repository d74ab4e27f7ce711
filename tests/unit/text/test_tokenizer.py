"""Encoding with and without special tokens, and the bytes of each id."""

import json

import pytest

from headrace.contract.errors import InvalidRequest, SetupError
from headrace.text.tokenizer import Tokenizer
from tests.unit.text.vocabularies import SPECIAL, byte_level, byte_level_encoder, sentencepiece, sentencepiece_encoder


def test_special_tokens_are_read_only_when_asked_for() -> None:
    text = "a<|im_start|>b"
    special_id = byte_level().special["<|im_start|>"].id
    assert special_id in byte_level().encode(text, special=True)
    plain = byte_level().encode(text, special=False)
    assert byte_level().special_ids.isdisjoint(plain)
    assert b"".join(byte_level().pieces[i] for i in plain) == text.encode()


def test_a_raw_prompt_gets_what_the_tokenizer_puts_around_it() -> None:
    tokenizer = Tokenizer(byte_level_encoder(bos=True).to_str())
    ids = tokenizer.encode_prompt("a<|im_end|>")
    assert ids[0] == tokenizer.special[SPECIAL[0]].id
    assert ids[-1] == tokenizer.special["<|im_end|>"].id
    assert tokenizer.encode("a", special=True) == ids[1:2]


def test_every_byte_has_a_piece() -> None:
    for tokenizer in (byte_level(), sentencepiece()):
        assert {bytes([byte]) for byte in range(128)} <= set(tokenizer.pieces.values())
        assert tokenizer.special_ids.isdisjoint(tokenizer.pieces)


def test_sizes() -> None:
    assert byte_level().vocab_size == byte_level_encoder().get_vocab_size()
    assert byte_level().longest_token == len("<|im_start|>") + 1
    assert byte_level().token(byte_level().special["<|im_end|>"].id) == "<|im_end|>"
    assert byte_level().token(None) == byte_level().token(9_999) == ""


def test_text_that_can_only_be_a_special_token_is_refused() -> None:
    """Some vocabularies put a special token together out of plain characters."""
    layout = json.loads(byte_level_encoder().to_str())
    vocab = layout["model"]["vocab"]
    vocab |= {"<s": 1000, "<s>": 1001}
    layout["model"]["merges"] += [["<", "s"], ["<s", ">"]]
    layout["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    layout["added_tokens"].append({**layout["added_tokens"][0], "id": 1001, "content": "<s>"})
    tokenizer = Tokenizer(json.dumps(layout))
    with pytest.raises(InvalidRequest, match="special token"):
        tokenizer.encode("<s>", special=False)


def test_unknown_text_is_no_special_token() -> None:
    layout = json.loads(sentencepiece_encoder().to_str())
    layout["model"]["byte_fallback"] = False
    tokenizer = Tokenizer(json.dumps(layout))
    unknown = tokenizer.special["<unk>"].id
    assert unknown in tokenizer.encode("日", special=False)


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"version": "1.0", "model": 7}'])
def test_what_is_no_tokenizer_is_refused(text: str) -> None:
    with pytest.raises(SetupError, match="tokenizer"):
        Tokenizer(text)


def test_an_unknown_kind_of_decoder_is_refused() -> None:
    layout = json.loads(byte_level_encoder().to_str())
    layout["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    with pytest.raises(SetupError, match="WordPiece"):
        Tokenizer(json.dumps(layout))


def test_each_id_by_itself() -> None:
    tokenizer = byte_level()
    assert tokenizer.written(tokenizer.special["<|im_end|>"].id) == b"<|im_end|>"
    assert tokenizer.written(tokenizer.encode("ll", special=False)[0]) == b"ll"
    assert tokenizer.written(9_999) == b""


@pytest.mark.parametrize("text", ["hello there <|im_start|>é", " two spaces", "<|im_end|>", "a"])
def test_the_pieces_of_a_prompt_are_its_text(text: str) -> None:
    for tokenizer in (byte_level(), Tokenizer(byte_level_encoder(bos=True).to_str()), sentencepiece()):
        ids = tokenizer.encode_prompt(text)
        pieces = tokenizer.prompt_pieces(ids)
        assert len(pieces) == len(ids)
        assert b"".join(pieces).decode() == text


def test_what_the_tokenizer_puts_in_front_is_no_part_of_the_text_and_what_others_do_is() -> None:
    tokenizer = Tokenizer(byte_level_encoder(bos=True).to_str())
    bos = tokenizer.special[SPECIAL[0]].id
    assert tokenizer.prompt_pieces((bos, *tokenizer.encode("a", special=True))) == [b"", b"a"]
    assert tokenizer.prompt_pieces((bos, bos)) == [b"", SPECIAL[0].encode()]
    assert byte_level().prompt_pieces((bos,)) == [SPECIAL[0].encode()]
    assert tokenizer.prompt_pieces(()) == []
