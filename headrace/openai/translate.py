"""A validated body becomes an Intent. Knows OpenAI's fields and ours; looks at no model and draws nothing."""

from dataclasses import replace

from headrace.contract.job import JobClass, Kind
from headrace.openai.schema import ChatBody, CompletionBody, Generation, JobBody, Message
from headrace.submission.intent import Intent, Turn


def chat_intent(body: ChatBody) -> Intent:
    return _intent(
        body,
        JobClass.INTERACTIVE,
        messages=body.messages,
        max_tokens=body.max_completion_tokens,
        logprobs=_alternatives(body),
    )


def completion_intents(body: CompletionBody) -> tuple[Intent, ...]:
    """One for each prompt, in their order."""
    asked = _intent(body, JobClass.INTERACTIVE, logprobs=body.logprobs, echo=bool(body.echo))
    return tuple(replace(asked, prompt=prompt) for prompt in _prompts(body.prompt))


def job_intent(body: JobBody) -> Intent:
    """The standard class and no deadline, unless the body says otherwise."""
    return _intent(
        body,
        JobClass(body.job_class or JobClass.STANDARD),
        messages=body.messages,
        prompt="" if body.prompt is None else _prompts(body.prompt)[0],
        max_tokens=body.max_completion_tokens,
        logprobs=_alternatives(body),
        echo=bool(body.echo),
        deadline_ms=None if body.deadline_seconds is None else max(1, round(body.deadline_seconds * 1000)),
    )


def _intent(
    body: Generation,
    job_class: JobClass,
    *,
    messages: list[Message] | None = None,
    prompt: str | tuple[int, ...] = "",
    max_tokens: int | None = None,
    logprobs: int | None = None,
    echo: bool = False,
    deadline_ms: int | None = None,
) -> Intent:
    return Intent(
        kind=Kind.COMPLETION if messages is None else Kind.CHAT,
        model=body.model,
        job_class=job_class,
        messages=tuple(_turn(message) for message in messages or ()),
        prompt=prompt,
        logprobs=logprobs,
        echo=echo,
        max_tokens=body.max_tokens if max_tokens is None else max_tokens,
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(dict.fromkeys(body.stop or ())),
        # Any 64-bit integer is a seed at OpenAI; ours are 63 bits, and -1 is as good as any other.
        seed=None if body.seed is None else body.seed & (2**63 - 1),
        temperature=_or(body.temperature, 1.0),
        top_p=_or(body.top_p, 1.0),
        top_k=max(0, body.top_k or 0),
        min_p=_or(body.min_p, 0.0),
        frequency_penalty=_or(body.frequency_penalty, 0.0),
        presence_penalty=_or(body.presence_penalty, 0.0),
        repetition_penalty=_or(body.repetition_penalty, 1.0),
        deadline_ms=deadline_ms,
        user=body.user or "",
        fallback_model=body.fallback_model or "",
        metadata=body.metadata or {},
    )


def _prompts(given: str | list[int] | list[str] | list[list[int]] | None) -> tuple[str | tuple[int, ...], ...]:
    """Each prompt as text or ids. A body that was validated has at least one."""
    if isinstance(given, str):
        return (given,)
    if not given or isinstance(given[0], int):
        return (tuple(given or ()),)  # type: ignore[arg-type]
    return tuple(each if isinstance(each, str) else tuple(each) for each in given)


def _alternatives(body: ChatBody | JobBody) -> int | None:
    """How many are wanted beside each token; chats say first whether, then how many."""
    if isinstance(body.logprobs, bool):
        return (body.top_logprobs or 0) if body.logprobs else None
    return body.logprobs


def _turn(message: Message) -> Turn:
    # OpenAI's newer name for the system message; the templates of open models know the older one.
    return Turn("system" if message.role == "developer" else message.role, message.text)


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)
