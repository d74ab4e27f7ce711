"""From an intent to prompt ids, without stalling the event loop. Knows cards and text, not queues.

Text becomes ids once, here: what a worker gets is never rendered again.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from headrace.contract.errors import InvalidRequest
from headrace.contract.job import Kind
from headrace.contract.model_card import ModelCard
from headrace.store.cards import CardBook
from headrace.submission.intent import Intent
from headrace.submission.limits import refuse_hopeless, refuse_unknown_ids
from headrace.text.chat_template import ChatTemplate
from headrace.text.prompt import ChatPrompt
from headrace.text.tokenizer import Tokenizer

INLINE_CHARACTERS = 2_000
"""Shorter prompts are encoded on the event loop: about two milliseconds, less than it costs to go elsewhere."""
MESSAGE_CHARACTERS = 32
"""What a message costs beside its text: rendering it, and the template's own words."""
MAX_CHATS = 8


class Prompting:
    """Keeps one compiled template for each revision. For one event loop."""

    def __init__(self, cards: CardBook, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._cards = cards
        self._now = now
        self._chats: dict[str, ChatPrompt] = {}

    async def prompt_ids(self, intent: Intent, card: ModelCard) -> tuple[int, ...]:
        """Raises InvalidRequest or ContextLengthExceeded for a prompt that this model cannot take, or what
        `CardBook.tokenizer` raises."""
        tokenizer = await self._cards.tokenizer(card.revision)
        prompt = intent.prompt
        if isinstance(prompt, tuple):
            refuse_unknown_ids(card, prompt, source=intent.source)
            return prompt
        if intent.kind is Kind.CHAT:
            chat = self._chat(card, tokenizer)
            now = self._now()
            size = sum(len(turn.content) + MESSAGE_CHARACTERS for turn in intent.messages)

            def work() -> tuple[int, ...]:
                return _chat_ids(intent, card, tokenizer, chat, now)
        else:
            size = len(prompt)

            def work() -> tuple[int, ...]:
                refuse_hopeless(card, len(prompt.encode()), tokenizer.longest_token, source=intent.source)
                return tokenizer.encode_prompt(prompt)

        return work() if size <= INLINE_CHARACTERS else await asyncio.to_thread(work)

    def _chat(self, card: ModelCard, tokenizer: Tokenizer) -> ChatPrompt:
        chat = self._chats.get(card.revision)
        if chat is None:
            if card.chat_template is None:
                raise InvalidRequest(
                    f"`{card.id}` has no chat template.", param="messages", next_step="Send a `prompt` instead."
                )
            while len(self._chats) >= MAX_CHATS:
                del self._chats[next(iter(self._chats))]
            template = ChatTemplate(card.chat_template)
            eos_id = card.eos_ids[0] if card.eos_ids else None
            chat = self._chats[card.revision] = ChatPrompt(tokenizer, template, bos_id=card.bos_id, eos_id=eos_id)
        return chat


def _chat_ids(
    intent: Intent, card: ModelCard, tokenizer: Tokenizer, chat: ChatPrompt, now: datetime
) -> tuple[int, ...]:
    messages = [{"role": turn.role, "content": turn.content} for turn in intent.messages]
    rendered, mark = chat.render(messages, now)
    refuse_hopeless(card, len(rendered.encode()), tokenizer.longest_token, source=intent.source)
    return chat.encode(rendered, mark)
