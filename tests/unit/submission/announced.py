"""The card and tokenizer that submission tests announce."""

from dataclasses import replace
from functools import cache
from typing import Any

import redis

from headrace.contract.model_card import ModelCard
from headrace.store.cards import write_card
from tests.unit.text.vocabularies import CHATML, byte_level, byte_level_encoder

CARD = ModelCard(
    id="small",
    revision="r1",
    context_length=400,
    max_kv_tokens=4_000,
    vocab_size=byte_level().vocab_size,
    eos_ids=(byte_level().special["<|im_end|>"].id,),
    bos_id=None,
    tokenizer_ref="",
    chat_template=CHATML,
    aliases=("tiny",),
    created_at=1_000,
)


@cache
def tokenizer_json() -> str:
    return byte_level_encoder().to_str()


def announce(client: redis.Redis, **fields: Any) -> ModelCard:
    """Write the card, with some fields other than above."""
    return write_card(client, replace(CARD, **fields), tokenizer_json())
