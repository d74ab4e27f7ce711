"""What a worker tells the fleet of its model. Knows the card, not how it is stored."""

import time

from headrace.contract.model_card import ModelCard
from workers.inference.messages import ModelFacts, Ready

ALWAYS = ("completion", "logprobs")


def make_card(model_id: str, ready: Ready) -> ModelCard:
    """The card of a loaded engine; the store fills in what the tokenizer is called."""
    facts = ready.facts
    return ModelCard(
        id=model_id,
        revision=facts.revision,
        context_length=facts.context_length,
        max_kv_tokens=ready.kv_tokens,
        vocab_size=facts.vocab_size,
        eos_ids=facts.eos_ids,
        bos_id=facts.bos_id,
        tokenizer_ref="",
        chat_template=facts.chat_template,
        capabilities=capabilities(facts),
        digest=ready.digest,
        created_at=int(time.time() * 1000),
        name=facts.name,
        architecture=facts.architecture,
        parameters=facts.parameters,
        quantization=facts.quantization,
        licence=facts.licence,
    )


def capabilities(facts: ModelFacts) -> tuple[str, ...]:
    """What can be asked of a model here; a chat needs a template in its file."""
    return ("chat", *ALWAYS) if facts.chat_template else ALWAYS
