"""Log probabilities in OpenAI's two shapes. Knows fields and how a token is written, not who generated it."""

import codecs
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from headrace.contract.generation import TokenLogprobs

LEAST = -9999.0
"""What OpenAI shows for a token that is all but impossible; JSON has no minus infinity."""

BytesOf = Callable[[int], bytes]


class TextOffsets:
    """Where in a text that comes in pieces each piece begins, in characters."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._at = 0

    def of(self, pieces: Iterable[bytes]) -> list[int]:
        """A piece that is the rest of a character begins where that character does."""
        offsets = []
        for piece in pieces:
            offsets.append(self._at)
            self._at += len(self._decode(piece))
        return offsets


def completion_logprobs(
    ids: Sequence[int], scores: Sequence[TokenLogprobs | None], offsets: Sequence[int], bytes_of: BytesOf
) -> dict[str, Any]:
    """`choices[].logprobs` of `/v1/completions`: four lists with one entry for each id.

    `top_logprobs` maps written tokens to their logarithms, the token's own always among them; of two tokens that are
    written alike the likelier is shown. A token that nothing predicts (the first of a prompt) has null.
    """
    return {
        "tokens": [_written(bytes_of(token_id)) for token_id in ids],
        "token_logprobs": [None if score is None else _shown(score.logprob) for score in scores],
        "top_logprobs": [_top(token_id, score, bytes_of) for token_id, score in zip(ids, scores, strict=True)],
        "text_offset": list(offsets),
    }


def chat_logprobs(ids: Sequence[int], scores: Sequence[TokenLogprobs], bytes_of: BytesOf) -> dict[str, Any]:
    """`choices[].logprobs` of chats: a list of tokens, each with its bytes and its alternatives."""
    content = [
        {
            **_chat_token(token_id, score.logprob, bytes_of),
            "top_logprobs": [_chat_token(other, logprob, bytes_of) for other, logprob in score.top],
        }
        for token_id, score in zip(ids, scores, strict=True)
    ]
    return {"content": content, "refusal": None}


def joined(parts: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The logprobs of a whole answer from those of its deltas, in either shape."""
    whole: dict[str, Any] | None = None
    for part in parts:
        if part is None:
            continue
        if whole is None:
            whole = {name: None if value is None else [] for name, value in part.items()}
        for name, value in part.items():
            if value is not None:
                whole[name] += value
    return whole


def _top(token_id: int, score: TokenLogprobs | None, bytes_of: BytesOf) -> dict[str, float] | None:
    if score is None:
        return None
    top: dict[str, float] = {}
    for other, logprob in (*score.top, (token_id, score.logprob)):
        top.setdefault(_written(bytes_of(other)), _shown(logprob))
    return top


def _chat_token(token_id: int, logprob: float, bytes_of: BytesOf) -> dict[str, Any]:
    data = bytes_of(token_id)
    return {"token": data.decode("utf-8", "backslashreplace"), "logprob": _shown(logprob), "bytes": list(data)}


def _written(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _shown(logprob: float) -> float:
    return max(logprob, LEAST)
