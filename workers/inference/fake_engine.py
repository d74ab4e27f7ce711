"""A deterministic engine without a model: tokens from a hash, and faults on demand. Knows no torch.

For the fault suite and for trying out a fleet: `--model fake:` with knobs, `fake:speed=50,crash_at=40`. The tokens of a
request are a function of its prompt, seed, choice and offset, so a resumed run continues an undisturbed one exactly.
"""

import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass, fields

from headrace.contract.errors import ErrorInfo
from headrace.contract.generation import PromptLogprobs, TokenLogprobs
from workers.inference.messages import AddRequest, ModelFacts, Output, Ready, Stepped, StepStats

SCHEME = "fake:"
EOS = 256
PAGE = 16
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
FAILED = ErrorInfo("engine_error", "The fake engine was told to fail.", retryable=True)
FINAL = ErrorInfo("engine_error", "The fake engine was told to fail as it would again.")
LETTERS = b"abcdefghijklmnopqrstuvwxyz    "


@dataclass(frozen=True, slots=True)
class Knobs:
    """`speed` is steps per second, 0 for as fast as can be. A fault strikes the request whose prompt begins with the
    token `poison`, or any request where that is -1, when its output reaches the offset that the fault names."""

    speed: float = 0.0
    kv_tokens: int = 8192
    context_length: int = 2048
    poison: int = -1
    crash_at: int = -1
    hang_at: int = -1
    error_at: int = -1
    final_at: int = -1


def parse_knobs(text: str) -> Knobs:
    """`speed=50,crash_at=40` after the scheme. Raises ValueError with the names there are."""
    kinds = {field.name: float if field.name == "speed" else int for field in fields(Knobs)}
    values: dict[str, float] = {}
    for part in filter(None, text.removeprefix(SCHEME).split(",")):
        name, _, value = part.partition("=")
        if name not in kinds:
            raise ValueError(f"the fake engine has no knob {name!r}; it has {', '.join(kinds)}")
        values[name] = kinds[name](value)
    return Knobs(**values)  # type: ignore[arg-type]


def token_at(request: AddRequest, offset: int) -> int:
    """The token of a request at an offset of its output: a letter or a space."""
    prompt = b"".join(token.to_bytes(4, "little") for token in request.prompt_ids)
    key = f"{request.sampling.seed}:{request.choice}:{offset}:".encode()
    return LETTERS[hashlib.blake2b(key + prompt, digest_size=1).digest()[0] % len(LETTERS)]


def logprobs_at(position: int, token_id: int, alternatives: int) -> TokenLogprobs:
    """How likely this engine says that a token was: the first to the fourth of the ids around its own.

    `position` counts from the start of the prompt. Sixty-fourths, which float32 and JSON both say exactly.
    """
    dice = hashlib.blake2b(f"{position}:{token_id}".encode(), digest_size=2).digest()
    rank, first = dice[0] % 4, -1 - dice[1] % 8 / 64
    top = tuple(((token_id + place - rank) % (EOS + 1), first - place) for place in range(alternatives))
    return TokenLogprobs(first - rank, top)


def prompt_logprobs(request: AddRequest) -> PromptLogprobs:
    """Of the whole prompt, where they are asked for."""
    if request.prompt_logprobs is None:
        return ()
    rest = enumerate(request.prompt_ids[1:], start=1)
    return (None, *(logprobs_at(position, token, request.prompt_logprobs) for position, token in rest))


class FakeEngine:
    """One token for every request in every step. Prompts cost nothing."""

    def __init__(self, knobs: Knobs) -> None:
        self._knobs = knobs
        self._requests: dict[str, tuple[AddRequest, int]] = {}

    def ready(self) -> Ready:
        tokenizer = byte_tokenizer()
        revision = "fake-" + hashlib.sha256(tokenizer.encode()).hexdigest()[:16]
        facts = ModelFacts(revision, tokenizer, CHAT_TEMPLATE, self._knobs.context_length, EOS + 1, (EOS,), None)
        return Ready(facts, self._knobs.kv_tokens, "fake", 0.0)

    def add(self, request: AddRequest) -> Output | None:
        if len(request.prompt_ids) + request.max_tokens > self._knobs.context_length:
            error = ErrorInfo("context_length_exceeded", "The request is longer than the context.")
            return Output(request.request_id, len(request.token_ids), (), error=error)
        if request.max_tokens == 0 and request.prompt_logprobs is None:
            error = ErrorInfo("invalid_request", "max_tokens must be at least 1.")
            return Output(request.request_id, 0, (), error=error)
        self._requests[request.request_id] = (request, len(request.token_ids))
        return None

    def abort(self, request_ids: tuple[str, ...] | None) -> None:
        for request_id in list(self._requests) if request_ids is None else request_ids:
            self._requests.pop(request_id, None)

    def check_integrity(self) -> None:
        """It has nothing to lose."""

    def busy(self) -> bool:
        return bool(self._requests)

    def idle(self) -> StepStats:
        return StepStats(kv_pages=self._knobs.kv_tokens // PAGE, kv_pages_used=self._pages_used())

    def step(self) -> Stepped:
        began = time.monotonic()
        if self._knobs.speed > 0:
            time.sleep(1 / self._knobs.speed)
        rows = len(self._requests)
        scheduled = tuple(self._requests)
        outputs = tuple(self._advance(request, offset) for request, offset in list(self._requests.values()))
        stats = StepStats(
            seconds=time.monotonic() - began,
            decode_rows=rows,
            decoded_tokens=sum(len(output.token_ids) for output in outputs),
            running=len(self._requests),
            scheduled=scheduled,
            kv_pages=self._knobs.kv_tokens // PAGE,
            kv_pages_used=self._pages_used(),
        )
        return Stepped(outputs, stats)

    def _pages_used(self) -> int:
        """It keeps no KV; these are the pages that an engine would hold for what it knows."""
        return sum(-(-(len(request.prompt_ids) + offset) // PAGE) for request, offset in self._requests.values())

    def _advance(self, request: AddRequest, offset: int) -> Output:
        if self._struck(request):
            if offset == self._knobs.crash_at:
                os.kill(os.getpid(), signal.SIGKILL)
            while offset == self._knobs.hang_at:
                time.sleep(1)
            if offset in (self._knobs.error_at, self._knobs.final_at):
                del self._requests[request.request_id]
                return Output(request.request_id, offset, (), error=FAILED if offset == self._knobs.error_at else FINAL)
        ended = offset + 1 >= request.max_tokens
        if ended:
            del self._requests[request.request_id]
        else:
            self._requests[request.request_id] = (request, offset + 1)
        token_ids = (token_at(request, offset),) if request.max_tokens else ()
        wanted, position = request.logprobs, len(request.prompt_ids) + offset
        return Output(
            request_id=request.request_id,
            offset=offset,
            token_ids=token_ids,
            finish_reason="length" if ended else None,
            logprobs=() if wanted is None else tuple(logprobs_at(position, token, wanted) for token in token_ids),
            prompt_logprobs=prompt_logprobs(request) if offset == 0 else (),
        )

    def _struck(self, request: AddRequest) -> bool:
        return self._knobs.poison in (-1, request.prompt_ids[0])


def byte_tokenizer() -> str:
    """A tokenizer whose ids 0-255 are the bytes of the same number and 256 is the end, as `tokenizers` JSON."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    names = {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}
    end = {"id": EOS, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    layout = {
        "version": "1.0",
        "added_tokens": [{**end, "normalized": False, "special": True}],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "vocab": {names[byte]: byte for byte in range(256)} | {"<|end|>": EOS},
            "merges": [],
        },
    }
    return json.dumps(layout)
