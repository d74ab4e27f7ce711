"""How long a prompt and its answer may be. Pure: numbers in, a number or a refusal out."""

from headrace.contract.errors import ContextLengthExceeded, InvalidRequest
from headrace.contract.job import Kind
from headrace.contract.model_card import ModelCard

COMPLETION_TOKENS = 16
"""OpenAI's default on the completions route."""


def settle_max_tokens(card: ModelCard, kind: Kind, prompt_tokens: int, asked: int | None, *, source: str) -> int:
    """How many tokens the answer may have: what was asked for, else the default of the kind, within the room there is.

    `source` is the field that the prompt came from. Raises ContextLengthExceeded with both numbers when prompt and
    answer cannot fit together, InvalidRequest for a prompt of no tokens.
    """
    room = card.max_tokens_in_all - prompt_tokens
    if prompt_tokens < 1:
        raise InvalidRequest("The prompt has no tokens.", param=source)
    if room < (0 if asked == 0 else 1):
        raise ContextLengthExceeded(
            f"{_limit(card)} The prompt has {prompt_tokens:,}, which leaves no room for an answer.",
            param=source,
            next_step="Shorten it, or split the document.",
        )
    if asked is None:
        return min(COMPLETION_TOKENS, room) if kind is Kind.COMPLETION else room
    if asked > room:
        raise ContextLengthExceeded(
            f"{_limit(card)} The prompt has {prompt_tokens:,} and the answer may have {asked:,}, "
            f"{prompt_tokens + asked:,} together.",
            param=source,
            next_step=f"Ask for at most {room:,}, or shorten the prompt.",
        )
    return asked


def refuse_unknown_ids(card: ModelCard, prompt_ids: tuple[int, ...], *, source: str) -> None:
    """Raises InvalidRequest for an id that is not in the model's vocabulary."""
    largest = max(prompt_ids)
    if largest >= card.vocab_size:
        raise InvalidRequest(
            f"Token id {largest} is not in the vocabulary of `{card.id}`, which has {card.vocab_size:,} tokens.",
            param=source,
            next_step="Encode the prompt with this model's own tokenizer, or send it as text.",
        )


def refuse_hopeless(card: ModelCard, size: int, longest_token: int, *, source: str) -> None:
    """Refuse a text of `size` bytes that cannot fit even if each token were the longest there is.

    This spares encoding it, which for megabytes takes seconds. Raises ContextLengthExceeded with both numbers.
    """
    at_least = -(-size // longest_token)
    if at_least > card.max_tokens_in_all:
        raise ContextLengthExceeded(
            f"{_limit(card)} The prompt has at least {at_least:,}.",
            param=source,
            next_step="Shorten it, or split the document.",
        )


def _limit(card: ModelCard) -> str:
    if card.max_kv_tokens < card.context_length:
        return (
            f"`{card.id}` can take {card.max_kv_tokens:,} tokens here, prompt and answer together: its context is "
            f"{card.context_length:,}, but no worker's cache holds more."
        )
    return f"`{card.id}` has a context of {card.context_length:,} tokens, prompt and answer together."
