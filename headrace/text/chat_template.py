"""Renders a conversation with the template that came with the model. Knows Jinja, not tokens.

The template is a program by a stranger, so it runs in Jinja's immutable sandbox and its output is bounded.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from headrace.contract.errors import InvalidRequest

MAX_CHARACTERS = 16_000_000


class ChatTemplate:
    """A compiled template. Safe to share between threads. Raises InvalidRequest when it does not compile."""

    def __init__(self, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise InvalidRequest(f"This model's chat template is not valid: {error}.", param="messages") from error

    def render(
        self, messages: Sequence[dict[str, str]], *, bos_token: str = "", eos_token: str = "", now: datetime
    ) -> str:
        """The prompt as text, ending where the assistant is to speak.

        `messages` are {"role", "content"} objects; `now` is what a template that writes the date will write.
        Raises InvalidRequest with what the template says of these messages.
        """
        pieces = self._template.generate(
            messages=messages,
            add_generation_prompt=True,
            bos_token=bos_token,
            eos_token=eos_token,
            tools=None,
            documents=None,
            strftime_now=_clock(now),
        )
        rendered: list[str] = []
        length = 0
        try:
            for piece in pieces:
                rendered.append(piece)
                length += len(piece)
                if length > MAX_CHARACTERS:
                    raise InvalidRequest(
                        f"The rendered prompt exceeds {MAX_CHARACTERS:,} characters.", param="messages"
                    )
        except InvalidRequest:
            raise
        except Exception as error:  # a template is a program and may fail in any way; its caller gets a 400
            raise InvalidRequest(
                f"This model's chat template refused the messages: {error}.", param="messages"
            ) from error
        return "".join(rendered)


def _clock(now: datetime) -> Callable[[str], str]:
    def strftime_now(pattern: str) -> str:
        return now.strftime(pattern)

    return strftime_now


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes for HTML, which a prompt must not be."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
