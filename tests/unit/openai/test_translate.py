"""From validated bodies to intents: defaults, names and ranges."""

from typing import Any

import pytest

from headrace.contract.generation import Sampling
from headrace.contract.job import JobClass, Kind
from headrace.openai.schema import ChatBody, CompletionBody, JobBody, parse
from headrace.openai.translate import chat_intent, completion_intents, job_intent
from headrace.submission.intent import Intent, Turn


def chat(**more: Any) -> Intent:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}
    return chat_intent(parse(ChatBody, body))


def test_defaults() -> None:
    assert chat() == Intent(Kind.CHAT, "m", JobClass.INTERACTIVE, messages=(Turn("user", "hi"),))
    assert chat().sampling(7) == Sampling(seed=7)


def test_null_is_the_default() -> None:
    names = [name for name in ChatBody.model_fields if name not in ("model", "messages")]
    assert chat(**dict.fromkeys(names)) == chat()


def test_every_value_arrives() -> None:
    intent = chat(
        max_completion_tokens=9,
        temperature=0,
        top_p=0.5,
        top_k=3,
        min_p=0.1,
        frequency_penalty=1,
        presence_penalty=-1,
        repetition_penalty=1.5,
        user="u",
        metadata={"a": "b"},
    )
    assert intent.sampling(0) == Sampling(0, 0.0, 0.5, 3, 0.1, 1.0, -1.0, 1.5)
    assert (intent.max_tokens, intent.user, intent.metadata) == (9, "u", {"a": "b"})


@pytest.mark.parametrize(("given", "stop"), [("a", ("a",)), (["a", "b", "a"], ("a", "b")), ([], ())])
def test_stop(given: Any, stop: tuple[str, ...]) -> None:
    assert chat(stop=given).stop == stop


@pytest.mark.parametrize(("given", "seed"), [(0, 0), (7, 7), (2**63 - 1, 2**63 - 1), (-1, 2**63 - 1), (-(2**63), 0)])
def test_any_seed_becomes_one_of_63_bits(given: int, seed: int) -> None:
    assert chat(seed=given).seed == seed


def test_top_k_minus_one_is_off() -> None:
    assert chat(top_k=-1).top_k == 0


def test_parts_are_joined_and_developers_are_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert chat(messages=[{"role": "developer", "content": parts}]).messages == (Turn("system", "ab"),)


def test_completions_are_interactive() -> None:
    (intent,) = completion_intents(parse(CompletionBody, {"model": "m", "prompt": "p"}))
    assert intent == Intent(Kind.COMPLETION, "m", JobClass.INTERACTIVE, prompt="p")
    assert (intent.source, chat().source) == ("prompt", "messages")


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("p", ("p",)),
        (["p", "q"], ("p", "q")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
    ],
)
def test_every_form_of_prompt(given: Any, prompts: tuple[str | tuple[int, ...], ...]) -> None:
    body = parse(CompletionBody, {"model": "m", "prompt": given, "logprobs": 3, "echo": True, "max_tokens": 0})
    intents = completion_intents(body)
    assert tuple(intent.prompt for intent in intents) == prompts
    assert {(intent.logprobs, intent.echo, intent.max_tokens) for intent in intents} == {(3, True, 0)}


def test_how_many_alternatives_are_wanted() -> None:
    assert [chat(**more).logprobs for more in ({}, {"logprobs": False}, {"logprobs": True})] == [None, None, 0]
    assert chat(logprobs=True, top_logprobs=7).logprobs == 7
    ids = job_intent(parse(JobBody, {"model": "m", "prompt": [1], "logprobs": 2, "echo": True}))
    assert (ids.kind, ids.prompt, ids.logprobs, ids.echo) == (Kind.COMPLETION, (1,), 2, True)


def test_jobs_are_standard_unless_they_say_otherwise() -> None:
    assert job_intent(parse(JobBody, {"model": "m", "prompt": "p"})).job_class is JobClass.STANDARD
    body = {"model": "m", "prompt": "p", "class": "background", "deadline_seconds": 1.5, "max_tokens": 3}
    intent = job_intent(parse(JobBody, body))
    assert (intent.job_class, intent.deadline_ms, intent.max_tokens) == (JobClass.BACKGROUND, 1_500, 3)
    assert job_intent(parse(JobBody, {**body, "deadline_seconds": 0.0001})).deadline_ms == 1
