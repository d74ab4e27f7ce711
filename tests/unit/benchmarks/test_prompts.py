"""Prompts of words that are one token each: as text and as ids of one length."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel

from benchmarks.fleet import Words


@pytest.fixture(name="words")
def _words() -> Words:
    vocabulary = ["?", "mill", "Ġmill", "Ġrace", "ĠWheel", "Ġ12", "Ġwater"]
    tokenizer = Tokenizer(WordLevel({token: index for index, token in enumerate(vocabulary)}, unk_token="?"))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return Words(tokenizer)


def test_text_and_ids_are_the_same_tokens(words: Words) -> None:
    prompt = words.prompt("seed", 9)
    known = {"mill": 2, "race": 3, "water": 6}
    assert prompt.ids == tuple(known[word] for word in prompt.text.split())
    assert len(prompt.ids) == 9


def test_a_seed_makes_the_same_prompt_again(words: Words) -> None:
    assert words.prompt("seed", 40) == words.prompt("seed", 40)
    assert words.prompt("seed", 40) != words.prompt("other", 40)
