"""How a job's ids are read: its tokenizer, stop strings and answers put together. Knows no road and no HTTP."""

from gateway.services import Services
from gateway.transcript import NewStream
from headrace.contract.events import Delta
from headrace.contract.generation import Choice
from headrace.contract.job import Job
from headrace.openai.projection import Answer
from headrace.openai.telling import Telling, answers
from headrace.queue.rules import fallen_back
from headrace.store import records
from headrace.store.payloads import is_blob
from headrace.text.detokenizer import TextStream, whole_text


async def text_streams(services: Services, job: Job) -> NewStream:
    """Makes a fresh text stream for each choice, also for the model that the job may fall back to. Raises RevisionGone
    when the job's tokenizer is no longer kept."""
    own = await services.cards.tokenizer(job.revision)
    other = fallen_back(job)
    tokenizers = {} if other is None else {other.revision: await services.cards.tokenizer(other.revision)}
    return lambda revision: TextStream(tokenizers.get(revision, own), job.request.stop)


async def telling(services: Services, job: Job, first_index: int = 0) -> Telling:
    """Says a job's deltas in OpenAI's shapes. Raises like `text_streams`."""
    return Telling(await _whole(services, job), await services.cards.tokenizer(job.revision), first_index)


async def answers_of(services: Services, job: Job) -> list[Answer] | None:
    """Every choice of a job that succeeded; None once its result is no longer kept."""
    choices = await services.journal.result(job.id)
    if choices is None and is_blob(job.result_ref):  # Redis knows neither job nor result any more
        choices = records.unpack_result(await services.payloads.fetch_result(job.id, job.result_ref))
    if choices is None:
        return None
    tokenizer = await services.cards.tokenizer(job.revision)
    told = Telling(await _whole(services, job), tokenizer)

    def delta(choice: Choice) -> Delta:
        text = whole_text(tokenizer, choice.token_ids, job.request.stop)
        return Delta(
            0, choice.index, 0, choice.token_ids, text, choice.finish_reason, choice.logprobs, choice.prompt_logprobs
        )

    return answers(told.part(delta(choice)) for choice in choices)


async def _whole(services: Services, job: Job) -> Job:
    """With its prompt, wherever that lies, if it is to be said again."""
    return await services.payloads.fetch_prompt(job) if job.request.echo else job
