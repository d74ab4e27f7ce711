"""The bodies that are accepted, field by field. Knows what a valid body is, not what becomes of it.

Nothing is ignored: a parameter that is not listed here is refused by name. `null` means the default, as at OpenAI.
"""

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from headrace.contract.errors import HeadraceError, InvalidRequest, UnknownParameter

MAX_INT32 = 2**31 - 1
MAX_MESSAGES = 4_096
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 1_024
MAX_DEADLINE_SECONDS = 30 * 24 * 3600
MAX_PROMPTS = 128
MAX_LOGPROBS = 5
MAX_TOP_LOGPROBS = 20

_STRING, _LIST = "<string>", "<list>"
_IDS, _STRINGS, _ID_LISTS, _NOTHING = "<ids>", "<strings>", "<id lists>", "<empty>"
_BOOL, _INT = "<bool>", "<int>"
_UNNAMED = frozenset({_STRING, _LIST, _IDS, _STRINGS, _ID_LISTS, _NOTHING, _BOOL, _INT, "[key]"})
"""Steps of an error's place that are not in the body."""


def _string_or_list(value: Any) -> str | None:
    return _STRING if isinstance(value, str) else _LIST if isinstance(value, list) else None


def _either(name: str) -> Discriminator:
    return Discriminator(
        _string_or_list, custom_error_type="string_or_list", custom_error_message=f"should be a string or {name}"
    )


def _kind_of_prompt(value: Any) -> str | None:
    """The first item of a list says what the others must be."""
    if not isinstance(value, list) or not value:
        return _STRING if isinstance(value, str) else _NOTHING if value == [] else None
    first = value[0]
    return _STRINGS if isinstance(first, str) else _ID_LISTS if isinstance(first, list) else _IDS


def _bool_or_int(value: Any) -> str | None:
    return _BOOL if isinstance(value, bool) else _INT if isinstance(value, int) else None


def _refuse_empty(_: Any) -> None:
    raise PydanticCustomError("empty", "should not be empty")


def _no_lone_surrogate(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("unicode", "should be Unicode text, without lone surrogates") from error
    return text


UNICODE = AfterValidator(_no_lone_surrogate)
Text = Annotated[str, UNICODE]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class TextPart(Body):
    type: Literal["text"]
    text: Text


class Message(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[Text, Tag(_STRING)] | Annotated[list[TextPart], Field(min_length=1, fail_fast=True), Tag(_LIST)],
        _either("a list of text parts"),
    ]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Body):
    include_usage: bool | None = None


StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS), UNICODE]
MetadataKey = Annotated[str, Field(min_length=1, max_length=64), UNICODE]
MetadataValue = Annotated[str, Field(max_length=512), UNICODE]
Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
PromptText = Annotated[str, Field(min_length=1), UNICODE]
PromptIds = Annotated[list[Annotated[int, Field(ge=0, le=MAX_INT32)]], Field(min_length=1, fail_fast=True)]
Nothing = Annotated[None, BeforeValidator(_refuse_empty), Tag(_NOTHING)]
_MANY = Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)
Prompt = Annotated[
    Annotated[PromptText, Tag(_STRING)]
    | Annotated[PromptIds, Tag(_IDS)]
    | Annotated[list[PromptText], _MANY, Tag(_STRINGS)]
    | Annotated[list[PromptIds], _MANY, Tag(_ID_LISTS)]
    | Nothing,
    Discriminator(
        _kind_of_prompt,
        custom_error_type="prompt",
        custom_error_message="should be a string, a list of strings, a list of token ids or a list of such lists",
    ),
]
OnePrompt = Annotated[
    Annotated[PromptText, Tag(_STRING)] | Annotated[PromptIds, Tag(_IDS)] | Nothing,
    Discriminator(
        _kind_of_prompt,
        custom_error_type="one_prompt",
        custom_error_message="should be a string or a list of token ids: a job has one prompt",
    ),
]
Alternatives = Annotated[int, Field(ge=0, le=MAX_LOGPROBS)]


class Generation(Body):
    """What every kind of generation has in common."""

    model: Annotated[str, Field(min_length=1, max_length=256), UNICODE]
    max_tokens: Annotated[int, Field(ge=0, le=MAX_INT32)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_INT32)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: (
        Annotated[
            Annotated[StopString, Tag(_STRING)] | Annotated[list[StopString], Field(max_length=MAX_STOPS), Tag(_LIST)],
            _either("a list of strings"),
        ]
        | None
    ) = None
    n: Annotated[int, Field(ge=1)] | None = None
    user: Annotated[str, Field(max_length=512), UNICODE] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    fallback_model: Annotated[str, Field(min_length=1, max_length=256), UNICODE] | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatBody(Generation):
    """`POST /v1/chat/completions`."""

    messages: Messages
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INT32)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_INT32)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None


class CompletionBody(Generation):
    """`POST /v1/completions`. Several prompts are as many jobs. `max_tokens` 0 scores a prompt and adds nothing."""

    prompt: Prompt
    logprobs: Alternatives | None = None
    echo: bool | None = None


class JobBody(Generation):
    """`POST /v1/jobs`: a chat completion or a completion, and how the job is to be treated."""

    messages: Messages | None = None
    prompt: OnePrompt | None = None
    logprobs: (
        Annotated[
            Annotated[bool, Tag(_BOOL)] | Annotated[Alternatives, Tag(_INT)],
            Discriminator(
                _bool_or_int,
                custom_error_type="bool_or_int",
                custom_error_message="should be true or false with `messages`, a whole number with `prompt`",
            ),
        ]
        | None
    ) = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_INT32)] | None = None
    job_class: Literal["interactive", "standard", "batch", "background"] | None = Field(default=None, alias="class")
    deadline_seconds: Annotated[float, Field(gt=0, le=MAX_DEADLINE_SECONDS)] | None = None


class ReplayBody(Body):
    """`POST /v1/jobs/<id>/replay`: how the same request is to be run again. All of it may be left out."""

    any_digest: bool | None = None
    job_class: Literal["interactive", "standard", "batch", "background"] | None = Field(default=None, alias="class")
    deadline_seconds: Annotated[float, Field(gt=0, le=MAX_DEADLINE_SECONDS)] | None = None


B = TypeVar("B", bound=Body)


def read_json(body: bytes) -> dict[str, Any]:
    """The JSON object in a request body. Raises InvalidRequest for anything else, NaN and half a surrogate included."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InvalidRequest(f"The body must be a JSON object, not {_json_name(value)}.")
    return value


def parse(model: type[B], body: dict[str, Any]) -> B:
    """Validate a body. Raises InvalidRequest or UnknownParameter with `param`, for the first thing that is wrong."""
    try:
        parsed = model.model_validate(body)
    except ValidationError as error:
        raise _refusal(error) from error
    if isinstance(parsed, Generation):
        _check_together(parsed)
    return parsed


def _check_together(body: Generation) -> None:
    """What no single field can tell."""
    if body.n is not None and body.n > 1:
        raise UnknownParameter(
            "`n` greater than 1 is not supported.", param="n", next_step="Submit n requests instead."
        )
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("`stream_options` is only allowed with `stream`: true.", param="stream_options")
    newer = getattr(body, "max_completion_tokens", None)
    if None not in (newer, body.max_tokens) and newer != body.max_tokens:
        raise InvalidRequest("`max_tokens` and `max_completion_tokens` differ; give one of them.", param="max_tokens")
    if isinstance(body, JobBody):
        _check_job(body)
    if isinstance(body, CompletionBody | JobBody):
        _check_scoring(body)
    if isinstance(body, ChatBody | JobBody) and body.top_logprobs is not None and body.logprobs is not True:
        raise InvalidRequest("`top_logprobs` is only allowed with `logprobs`: true.", param="top_logprobs")


def _check_job(body: JobBody) -> None:
    if (body.messages is None) == (body.prompt is None):
        raise InvalidRequest("Give `messages` or `prompt`: exactly one of the two.", param="messages")
    if body.stream:
        raise InvalidRequest(
            "A job does not stream its reply.", param="stream", next_step="Read GET /v1/jobs/<id>/events instead."
        )
    if body.logprobs is not None and isinstance(body.logprobs, bool) == (body.messages is None):
        wanted = "true or false with `messages`" if body.prompt is None else f"0 to {MAX_LOGPROBS} with `prompt`"
        raise InvalidRequest(f"Invalid value for `logprobs`: should be {wanted}.", param="logprobs")
    if body.echo and body.messages is not None:
        raise InvalidRequest("`echo` is only allowed with `prompt`.", param="echo")


def _check_scoring(body: CompletionBody | JobBody) -> None:
    if body.max_tokens == 0 and not (body.echo and body.logprobs is not None):
        raise InvalidRequest(
            "`max_tokens` may only be 0 together with `echo` and `logprobs`, which score the prompt.",
            param="max_tokens",
        )


def _refusal(error: ValidationError) -> HeadraceError:
    first = error.errors(include_url=False, include_input=False)[0]
    param = _param(first["loc"])
    if first["type"] == "extra_forbidden":
        return UnknownParameter(f"Unknown or unsupported parameter: `{param}`.", param=param)
    if first["type"] == "missing":
        return InvalidRequest(f"Missing required parameter: `{param}`.", param=param)
    reason = _REASONS.get(first["type"]) or first["msg"][:1].lower() + first["msg"][1:]
    reason = reason.replace("after validation, ", "")
    return InvalidRequest(f"Invalid value for `{param}`: {reason}.", param=param)


_REASONS = {"model_type": "should be an object", "dict_type": "should be an object", "list_type": "should be a list"}
"""Where pydantic would speak of Python."""


def _param(location: tuple[int | str, ...]) -> str:
    """OpenAI's way of naming a place: `messages[0].content`."""
    name = ""
    for step in location:
        if isinstance(step, int):
            name += f"[{step}]"
        elif step not in _UNNAMED:
            name += f".{step}" if name else step
    return name[:200]


def _json_name(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
