"""What parent and child say to each other over the pipe: the only door between them. Knows no engine and no Redis.

Plain records of plain values, so that the parent can read them without importing torch. What every step says is tuples:
they cross the pipe in a quarter of the time that dataclasses take.
"""

from dataclasses import dataclass
from typing import NamedTuple

from headrace.contract.errors import ErrorInfo
from headrace.contract.generation import PromptLogprobs, Sampling, TokenLogprobs
from headrace.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class ChildOptions:
    """All that the child is told before its first message."""

    model_path: str
    engine: EngineSettings


@dataclass(frozen=True, slots=True)
class AddRequest:
    """Run one choice of a job. `token_ids` is what earlier attempts journaled; `max_tokens` counts those too.

    `logprobs` and `prompt_logprobs` as in the frozen request. Lower `priority` first; `deadline_s` is how long the job
    had when it was claimed.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    choice: int
    max_tokens: int
    token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    priority: int = 0
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class AbortRequests:
    """Free these requests' pages before the next step. Unknown ids are ignored."""

    request_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AbortAll:
    """Free everything before the next step; the child stays ready."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End after the step in hand: its outputs still come, then the pipe closes."""


Command = AddRequest | AbortRequests | AbortAll | Stop


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the model file says of itself, as the parent needs it."""

    revision: str
    tokenizer_json: str
    chat_template: str | None
    context_length: int
    vocab_size: int
    eos_ids: tuple[int, ...]
    bos_id: int | None
    name: str = ""
    architecture: str = ""
    parameters: int | None = None
    quantization: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine is loaded. `kv_tokens` is its whole budget; `started_s` how long the child took."""

    facts: ModelFacts
    kv_tokens: int
    digest: str
    started_s: float


class CannotStart(Exception):
    """Raised in the child for what it then says as `StartFailed`."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The engine cannot run as asked, and will not on a second try either: a damaged file, a missing device."""

    message: str


class Output(NamedTuple):
    """New tokens of one request from `offset` on; with `finish_reason` or `error` its last.

    Where they were asked for, `logprobs` has one entry for each id; the prompt's come with offset 0. `cached_tokens` of
    the prompt were found in the prefix cache; every output of a request says so.
    """

    request_id: str
    offset: int
    token_ids: tuple[int, ...]
    finish_reason: str | None = None
    error: ErrorInfo | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: PromptLogprobs = ()
    cached_tokens: int = 0


class StepStats(NamedTuple):
    """Figures of one step, for the metrics. `scheduled` names the requests that got a share of it; `cached_tokens` of
    their prompts were found in the prefix cache."""

    seconds: float = 0.0
    decode_rows: int = 0
    prefill_tokens: int = 0
    decoded_tokens: int = 0
    running: int = 0
    waiting: int = 0
    preemptions: int = 0
    kv_pages_used: int = 0
    kv_pages: int = 0
    scheduled: tuple[str, ...] = ()
    cached_tokens: int = 0


class Stepped(NamedTuple):
    """All that one step brought; without stats, the refusals of `AddRequest`; with stats that nothing was scheduled in,
    what an engine holds whose last requests were aborted."""

    outputs: tuple[Output, ...]
    stats: StepStats | None = None


Report = Ready | StartFailed | Stepped
