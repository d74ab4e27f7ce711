"""A validated body becomes an Intent. Knows OpenAI's fields and ours; looks at no model and draws nothing."""

from headrace.contract.job import JobClass, Kind
from headrace.openai.schema import ChatBody, CompletionBody, Generation, JobBody, Message
from headrace.submission.intent import Intent, Turn


def chat_intent(body: ChatBody) -> Intent:
    return _intent(body, JobClass.INTERACTIVE, messages=body.messages, max_tokens=body.max_completion_tokens)


def completion_intent(body: CompletionBody) -> Intent:
    return _intent(body, JobClass.INTERACTIVE, prompt=body.prompt)


def job_intent(body: JobBody) -> Intent:
    """The standard class and no deadline, unless the body says otherwise."""
    return _intent(
        body,
        JobClass(body.job_class or JobClass.STANDARD),
        messages=body.messages,
        prompt=body.prompt,
        max_tokens=body.max_completion_tokens,
        deadline_ms=None if body.deadline_seconds is None else max(1, round(body.deadline_seconds * 1000)),
    )


def _intent(
    body: Generation,
    job_class: JobClass,
    *,
    messages: list[Message] | None = None,
    prompt: str | None = None,
    max_tokens: int | None = None,
    deadline_ms: int | None = None,
) -> Intent:
    return Intent(
        kind=Kind.COMPLETION if messages is None else Kind.CHAT,
        model=body.model,
        job_class=job_class,
        messages=tuple(_turn(message) for message in messages or ()),
        prompt=prompt or "",
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
        metadata=body.metadata or {},
    )


def _turn(message: Message) -> Turn:
    # OpenAI's newer name for the system message; the templates of open models know the older one.
    return Turn("system" if message.role == "developer" else message.role, message.text)


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)
