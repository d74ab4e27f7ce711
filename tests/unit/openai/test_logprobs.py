"""OpenAI's two shapes of log probabilities, cut up in any way."""

import math

import pytest

from headrace.contract.events import Delta
from headrace.contract.generation import FrozenRequest, PromptLogprobs, Sampling, TokenLogprobs
from headrace.contract.job import Job, JobClass, Kind
from headrace.openai.logprobs import LEAST, TextOffsets, chat_logprobs, completion_logprobs, joined
from headrace.openai.telling import Telling, answers
from tests.unit.gateway.byte_model import EOS, byte_tokenizer, ids_of

TOKENIZER = byte_tokenizer()
BOS = EOS - 1


def scores(count: int) -> tuple[TokenLogprobs, ...]:
    return tuple(TokenLogprobs(-float(i), ((97 + i, -float(i)), (98 + i, -9.0))) for i in range(count))


def job(kind: Kind, prompt: tuple[int, ...] = (104, 105), *, echo: bool = False, logprobs: int | None = 2) -> Job:
    wanted = logprobs if echo else None
    request = FrozenRequest(prompt, Sampling(0), 9, logprobs=logprobs, prompt_logprobs=wanted, echo=echo)
    return Job("job_1", "m", "m@stable", "r", JobClass.STANDARD, kind, request)


def test_a_character_in_pieces_has_one_offset() -> None:
    offsets = TextOffsets()
    assert offsets.of([b"a", b"\xc3", b"\xa9", b"", b"bc"]) == [0, 1, 1, 2, 2]
    assert offsets.of([b"d"]) == [4]


def test_completion_shape() -> None:
    tops = (TokenLogprobs(-3.0, ((98, -0.5), (0xC3, -1.0))), None, TokenLogprobs(-math.inf))
    assert completion_logprobs((97, 98, EOS), tops, [0, 1, 2], TOKENIZER.written) == {
        "tokens": ["a", "b", "<|im_end|>"],
        "token_logprobs": [-3.0, None, LEAST],
        "top_logprobs": [{"b": -0.5, "bytes:\\xc3": -1.0, "a": -3.0}, None, {"<|im_end|>": LEAST}],
        "text_offset": [0, 1, 2],
    }


def test_of_two_tokens_that_are_written_alike_the_likelier_is_shown() -> None:
    data = completion_logprobs((1,), (TokenLogprobs(-2.0, ((2, -1.0), (1, -2.0))),), [0], lambda _: b"x")
    assert data["top_logprobs"] == [{"x": -1.0}]


def test_chat_shape() -> None:
    data = chat_logprobs((0xC3, EOS), (TokenLogprobs(-1.0, ((97, -0.5),)), TokenLogprobs(-math.inf)), TOKENIZER.written)
    assert data == {
        "content": [
            {
                "token": "\\xc3",
                "logprob": -1.0,
                "bytes": [0xC3],
                "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}],
            },
            {"token": "<|im_end|>", "logprob": LEAST, "bytes": list(b"<|im_end|>"), "top_logprobs": []},
        ],
        "refusal": None,
    }


def test_joined_parts_are_the_whole() -> None:
    assert joined([None, None]) is None
    assert joined([{"content": [1], "refusal": None}, None, {"content": [2], "refusal": None}]) == {
        "content": [1, 2],
        "refusal": None,
    }


@pytest.mark.parametrize("kind", [Kind.CHAT, Kind.COMPLETION])
@pytest.mark.parametrize("cuts", [(), (1,), (2, 3), (1, 2, 3, 4, 5)])
def test_however_deltas_are_cut_the_answer_is_the_same(kind: Kind, cuts: tuple[int, ...]) -> None:
    ids = ids_of("aéb🙂")
    asked, wanted = job(kind, echo=kind is Kind.COMPLETION), scores(len(ids))
    of_prompt: PromptLogprobs = (None, TokenLogprobs(-7.0)) if kind is Kind.COMPLETION else ()
    whole = Telling(asked, TOKENIZER).part(Delta(0, 0, 0, ids, "aéb🙂", "stop", wanted, of_prompt))
    told = Telling(asked, TOKENIZER)
    parts = []
    for low, high in zip((0, *cuts), (*cuts, len(ids)), strict=True):
        last = high == len(ids)
        text = "aéb🙂" if last else ""
        front = of_prompt if low == 0 else ()
        parts.append(
            told.part(Delta(0, 0, low, ids[low:high], text, "stop" if last else None, wanted[low:high], front))
        )
    (answer,) = answers(parts)
    assert (answer.text, answer.finish_reason, answer.logprobs) == (whole.text, "stop", whole.logprobs)


def test_special_tokens_of_a_prompt_are_as_they_were_written() -> None:
    part = Telling(job(Kind.COMPLETION, (97, EOS, 98), echo=True), TOKENIZER).part(
        Delta(0, 0, 0, ids_of("c"), "c", "stop", scores(1), (None, *scores(2)))
    )
    assert part.text == "a<|im_end|>bc"
    assert part.logprobs is not None
    assert part.logprobs["text_offset"] == [0, 1, 11, 12]


def test_a_choice_stands_where_its_job_does() -> None:
    told = Telling(job(Kind.COMPLETION, logprobs=None), TOKENIZER, first_index=5)
    part = told.part(Delta(0, 0, 0, ids_of("c"), "c"))
    assert (part.index, part.logprobs, part.says_nothing) == (5, None, False)


def test_a_worker_that_gives_no_logprobs_ends_nothing() -> None:
    for kind in (Kind.CHAT, Kind.COMPLETION):
        part = Telling(job(kind, echo=kind is Kind.COMPLETION), TOKENIZER).part(Delta(0, 0, 0, ids_of("c"), "c"))
        assert part.logprobs is None
