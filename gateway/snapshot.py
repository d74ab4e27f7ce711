"""A dead letter in full, for a person: its events, and the text of its prompt and of each choice so far. Only reads.

What can no longer be read is said in its place; the rest is shown all the same.
"""

import asyncio
from typing import Any

from gateway.services import Services
from headrace.contract.errors import HeadraceError, JobNotFound, JournalExpired, RevisionGone
from headrace.contract.events import Event
from headrace.contract.job import Job
from headrace.openai.dead_letters import snapshot_object
from headrace.store.journal import Journaled, join
from headrace.text.detokenizer import whole_text
from headrace.text.tokenizer import Tokenizer


async def snapshot_of(services: Services, letter: Job) -> dict[str, Any]:
    """Raises StoreUnavailable when Redis is away."""
    events = await _events(services, letter.id)
    tokenizer = await _tokenizer(services, letter)
    prompt = await _prompt(services, letter, tokenizer)
    choices = [_choice(index, so_far, letter, tokenizer) for index, so_far in enumerate(join(events, letter.request.n))]
    return snapshot_object(letter, prompt, choices, events)


async def _events(services: Services, job_id: str) -> list[Event]:
    """All of the journal; none of one that is no longer kept."""
    events: list[Event] = []
    try:
        while page := await services.journal.read(job_id, events[-1].seq if events else 0):
            events += page
    except (JobNotFound, JournalExpired):
        return []
    return events


async def _tokenizer(services: Services, letter: Job) -> Tokenizer | RevisionGone:
    try:
        return await services.cards.tokenizer(letter.revision)
    except RevisionGone as error:
        return error


async def _prompt(services: Services, letter: Job, tokenizer: Tokenizer | RevisionGone) -> str | HeadraceError:
    """As the model read it, or why it cannot be shown."""
    if isinstance(tokenizer, RevisionGone):
        return tokenizer
    try:
        ids = (await services.payloads.fetch_prompt(letter)).request.prompt_ids
    except HeadraceError as error:
        return error
    # It may be megabytes, and others stream on this loop.
    pieces = await asyncio.to_thread(tokenizer.prompt_pieces, ids)
    return b"".join(pieces).decode("utf-8", "replace")


def _choice(index: int, so_far: Journaled, letter: Job, tokenizer: Tokenizer | RevisionGone) -> dict[str, Any]:
    text = None
    if isinstance(tokenizer, Tokenizer):
        text = whole_text(tokenizer, so_far.token_ids, letter.request.stop)
    return {
        "index": index,
        "tokens": len(so_far.token_ids),
        "text": text,
        "finish_reason": so_far.finish_reason,
    }
