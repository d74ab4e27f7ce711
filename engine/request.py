"""A request inside the engine, and what it was asked with; knows ids and positions, no text and no tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from engine.bounds import need_number, need_whole, shown
from engine.errors import EngineRequestError
from engine.logprobs import MOST_ALTERNATIVES, TokenLogprobs

_Collection = TypeVar("_Collection")

_LARGEST: Final = (1 << 64) - 1
# Looked through at every token.
_MOST_BAD_WORDS: Final = 1024
_LONGEST_BAD_WORD: Final = 256
_PATIENCE_S: Final = 60.0
# Stands for a token that is still awaited; whoever computes its row has the token itself.
_AWAITED: Final = 0


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """What to generate, in ids. `temperature` 0 is greedy; `top_k` 0, `top_p` 1, `min_p` 0 are off.

    Penalties count tokens of the output (`frequency`, `presence`) or of prompt and output (`repetition`). `choice`
    is a part of the noise's key, so that choices of one seed differ. `stop_token_ids` end the request like the model's
    own end tokens, which `ignore_eos` switches off; the ending token is part of the output.

    `bad_words` are runs of tokens that shall not come about: where prompt and output end in all of one but its last
    token, that token is barred. Biases are added before penalties.

    `logprobs` and `prompt_logprobs` ask for the log probabilities of output and prompt tokens, with so many
    alternatives (0: none, None: nothing asked). They are the model's own, before bias, penalties and temperature.
    `max_tokens` may be 0 where `prompt_logprobs` is asked for: then nothing is generated.

    Not to be changed once a request has it, the mapping of biases included.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    choice: int = 0
    min_tokens: int = 0
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: str | None = None
    bad_words: tuple[tuple[int, ...], ...] = ()

    @property
    def takes_best(self) -> bool:
        """Whether each token is the best of its row as the model gives it, and nothing else is asked about it."""
        return (
            self.temperature == 0.0
            and self.logprobs is None
            and self.repetition_penalty == 1.0
            and not (self.frequency_penalty or self.presence_penalty or self.min_tokens)
            and not (self.logit_bias or self.bad_words or self.grammar)
        )

    def check(self, vocab_size: int) -> None:
        """Raises EngineRequestError naming the first value that cannot be."""
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if value is not None:
                need_whole(name, value, 0, MOST_ALTERNATIVES)
        need_whole("max_tokens", self.max_tokens, 1 if self.prompt_logprobs is None else 0, _LARGEST)
        need_whole("min_tokens", self.min_tokens, 0, self.max_tokens)
        need_number("temperature", self.temperature, 0.0, 100.0)
        need_number("top_p", self.top_p, 1e-9, 1.0)
        need_whole("top_k", self.top_k, 0, _LARGEST)
        need_number("min_p", self.min_p, 0.0, 1.0)
        need_number("frequency_penalty", self.frequency_penalty, -100.0, 100.0)
        need_number("presence_penalty", self.presence_penalty, -100.0, 100.0)
        need_number("repetition_penalty", self.repetition_penalty, 1e-3, 1e3)
        need_whole("seed", self.seed, 0, _LARGEST)
        need_whole("choice", self.choice, 0, 1 << 20)
        for token_id in _of_kind("stop_token_ids", self.stop_token_ids, Sequence):
            need_whole("a token id of stop_token_ids", token_id, 0, vocab_size - 1)
        for token_id, bias in _of_kind("logit_bias", self.logit_bias, Mapping).items():
            need_whole("a token id of logit_bias", token_id, 0, vocab_size - 1)
            need_number("a logit bias", bias, -1e4, 1e4)
        need_whole("the number of bad_words", len(_of_kind("bad_words", self.bad_words, Sequence)), 0, _MOST_BAD_WORDS)
        for word in self.bad_words:
            need_whole(
                "the length of one of bad_words", len(_of_kind("bad_words", word, Sequence)), 1, _LONGEST_BAD_WORD
            )
            for token_id in word:
                need_whole("a token id of bad_words", token_id, 0, vocab_size - 1)
        if self.grammar is not None:
            raise EngineRequestError("grammar is not supported by this engine yet; leave it out")


def _of_kind(name: str, value: _Collection, kind: type[object]) -> _Collection:
    if not isinstance(value, kind):
        raise EngineRequestError(f"{name} cannot be {shown(value)}")
    return value


@dataclass(frozen=True, slots=True)
class Resume:
    """Output that an earlier attempt has shown. It stays output: penalties and limits count it."""

    token_ids: tuple[int, ...]


def due_at(arrived: float, priority: int, deadline: float | None) -> float:
    """When a request's patience or its deadline runs out, in the seconds of the clock: whoever is due first goes first.

    Each class is 60 s more patient than the one before it. So a lower class gives way to a higher one, but only to what
    arrives within that time, and nobody waits for ever; within a class arrival decides, and before it a deadline that
    is less than 60 s away.
    """
    until = arrived if deadline is None else min(arrived, deadline - _PATIENCE_S)
    return until + priority * _PATIENCE_S


@dataclass(slots=True, eq=False)
class Request:
    """A request on its way. Owned by the scheduler.

    ids       | prompt ................ | output ......... | awaited ...
    planned   | computed, or to be by a step that is under way .. |  the rest is yet to be planned
    computed  | keys and values in pages, and known to be sound . |
    settled   | full pages, given to the cache .. |

    `awaited`: how many tokens behind `ids` the steps under way will bring. `explained` are log probabilities of prompt
    tokens 1, 2 ... until they are shown; a preemption does not forget them. `chain` names full pages of `ids` for the
    prefix cache, as many as have been needed so far; `settled` counts pages. `cached_tokens` of the prompt were found
    there when the request ran first, None before.
    """

    id: str
    params: SamplingParams
    ids: list[int]
    prompt_length: int
    due: float
    arrival: int
    end_ids: frozenset[int]
    pages: list[int] = field(default_factory=list)
    planned: int = 0
    computed: int = 0
    settled: int = 0
    awaited: int = 0
    chain: list[bytes] = field(default_factory=list)
    cached_tokens: int | None = None
    explained: list[TokenLogprobs] = field(default_factory=list)
    takes_best: bool = field(init=False)

    def __post_init__(self) -> None:
        self.takes_best = self.params.takes_best  # asked at every token

    @property
    def length(self) -> int:
        """Of prompt and output, with the tokens that are awaited."""
        return len(self.ids) + self.awaited

    @property
    def to_do(self) -> int:
        """How many rows can be planned now. The one of an awaited token among them, unless that token is the last, or
        what may follow it depends on its value: a grammar's state, the last token but one of a bad word."""
        if self.awaited and (self.length - self.prompt_length >= self.params.max_tokens or self._follows_values()):
            return 0
        return self.length - self.planned

    @property
    def output_length(self) -> int:
        return len(self.ids) - self.prompt_length

    @property
    def order(self) -> tuple[float, int]:
        """Whose turn it is: lower first."""
        return self.due, self.arrival

    @property
    def reusable(self) -> int:
        """How many tokens from the start need no computing if their keys and values are there already.

        Never the last one, whose row gives the next token, and none whose row is still to explain the token behind it.
        """
        explains = self.params.prompt_logprobs is not None and not self.output_length
        return min(len(self.ids) - 1, len(self.explained) if explains else len(self.ids))

    def token_ids(self, start: int, end: int) -> Sequence[int]:
        """Ids of positions `start` to `end`, prompt and output alike."""
        return [*self.ids[start:end], *[_AWAITED] * (end - max(start, len(self.ids)))]

    def output(self) -> tuple[int, ...]:
        return tuple(self.ids[self.prompt_length :])

    def unexplained(self, start: int, end: int) -> range:
        """Positions from `start` to `end` whose logits are wanted, as those of the prompt token behind them.

        None once there is output: it was shown together with the prompt's log probabilities.
        """
        if self.params.prompt_logprobs is None or self.output_length:
            return range(0)
        return range(max(start, len(self.explained)), min(end, self.prompt_length - 1))

    def prompt_logprobs(self) -> tuple[TokenLogprobs | None, ...]:
        """Of a prompt that has been computed; empty unless asked for and not yet shown."""
        if self.params.prompt_logprobs is None or self.output_length:
            return ()
        return (None, *self.explained)

    def finish_reason(self) -> str | None:
        """Whether the output so far is the whole of it. An end token outweighs the length.

        A request for the prompt's log probabilities alone has to be computed all the same.
        """
        length = self.output_length
        if not self.params.max_tokens and self.computed < self.prompt_length:
            return None
        if length and length >= self.params.min_tokens and self.ids[-1] in self.end_ids:
            return "stop"
        return "length" if length >= self.params.max_tokens else None

    def _follows_values(self) -> bool:
        return self.params.grammar is not None or any(len(word) > 1 for word in self.params.bad_words)
