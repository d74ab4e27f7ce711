"""Makes the prompt ids of a conversation, so that what users wrote can never act as the template's special tokens.

A rendered conversation is one text, in which a user's `<|im_end|>` looks like the template's. So before rendering, each
special token in a message is broken by a mark (a Unicode noncharacter that none of the messages contain), and so is
what could become one together with the template's text around it. After rendering, the special tokens still whole are
the template's; all else is encoded as plain text, without the marks.
"""

import re
from collections.abc import Sequence
from datetime import datetime

from headrace.contract.errors import InvalidRequest
from headrace.text.chat_template import ChatTemplate
from headrace.text.tokenizer import Tokenizer

_NONCHARACTERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))


class ChatPrompt:
    """One model's way from messages to ids. Safe to share between threads."""

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate, *, bos_id: int | None = None, eos_id: int | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._bos = tokenizer.token(bos_id)
        self._eos = tokenizer.token(eos_id)
        special = sorted(tokenizer.special, key=len, reverse=True)
        self._whole = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        self._starts = tuple({token[:cut] for token in special for cut in range(1, len(token))})
        self._ends = tuple({token[cut:] for token in special for cut in range(1, len(token))})

    def render(self, messages: Sequence[dict[str, str]], now: datetime) -> tuple[str, str]:
        """The rendered text and the mark in it."""
        mark = next((c for c in _NONCHARACTERS if all(c not in m["content"] for m in messages)), None)
        if mark is None:
            raise InvalidRequest("The messages contain every noncharacter of Unicode.", param="messages")
        guarded = [{**message, "content": self._guard(message["content"], mark)} for message in messages]
        return self._template.render(guarded, bos_token=self._bos, eos_token=self._eos, now=now), mark

    def encode(self, rendered: str, mark: str) -> tuple[int, ...]:
        """Ids of a rendered text. Raises InvalidRequest where plain text cannot be told from a special token."""
        if mark not in rendered:
            ids = self._tokenizer.encode(rendered, special=True)
            # A normaliser may turn look-alikes into special tokens after they were looked for.
            if self._tokenizer.counts_special(ids) == len(self._whole.findall(rendered)):
                return ids
        return self._encode_apart(rendered, mark)

    def _guard(self, content: str, mark: str) -> str:
        content = self._whole.sub(lambda found: found[0][0] + mark + found[0][1:], content)
        # A template may trim the message, so its borders are those of the trimmed text.
        head, tail = len(content) - len(content.lstrip()), len(content.rstrip())
        inside = head < tail and any(content[head:tail] in token for token in self._tokenizer.special)
        if inside or content.endswith(self._starts, head, tail):
            content = content[:tail] + mark + content[tail:]
        if inside or content.startswith(self._ends, head, tail):
            content = content[:head] + mark + content[head:]
        return content

    def _encode_apart(self, rendered: str, mark: str) -> tuple[int, ...]:
        ids: list[int] = []
        at = 0
        for found in self._whole.finditer(rendered):
            token = self._tokenizer.special[found[0]]
            plain = rendered[at : found.start()]
            ids += self._plain(plain.rstrip() if token.takes_space_before else plain, mark)
            ids.append(token.id)
            at = found.end()
            if token.takes_space_after:
                at = len(rendered) - len(rendered[at:].lstrip())
        return (*ids, *self._plain(rendered[at:], mark))

    def _plain(self, text: str, mark: str) -> tuple[int, ...]:
        text = text.replace(mark, "")
        return self._tokenizer.encode(text, special=False) if text else ()
