"""How a job's ids are read as text: its tokenizer and stop strings put together. Knows no events and no HTTP."""

from collections.abc import Callable

from gateway.services import Services
from headrace.contract.job import Job
from headrace.openai.projection import Answer
from headrace.text.detokenizer import TextStream, whole_text


async def text_streams(services: Services, job: Job) -> Callable[[], TextStream]:
    """Makes a fresh text stream for each choice. Raises RevisionGone when the job's tokenizer is no longer kept."""
    tokenizer = await services.cards.tokenizer(job.revision)
    return lambda: TextStream(tokenizer, job.request.stop)


async def answers_of(services: Services, job: Job) -> list[Answer] | None:
    """The text of every choice of a job that succeeded; None once its result is no longer kept."""
    choices = await services.journal.result(job.id)
    if choices is None:
        return None
    tokenizer = await services.cards.tokenizer(job.revision)
    return [
        Answer(choice.index, whole_text(tokenizer, choice.token_ids, job.request.stop), choice.finish_reason)
        for choice in choices
    ]
