"""Log probabilities through the whole fleet with the real model, as evaluation harnesses ask for them."""

import json

import pytest
from openai import OpenAI
from websockets.sync.client import connect

from headrace import Client
from tests.e2e.fleet import Fleet

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(240)]
PROMPT = "The capital of France is"


@pytest.fixture
def openai(fleet: Fleet) -> OpenAI:
    return OpenAI(base_url=f"{fleet.url}/v1", api_key="none")


def test_what_was_generated_scores_the_same_when_it_is_a_prompt(openai: OpenAI, fleet: Fleet) -> None:
    said = openai.completions.create(
        model=fleet.model, prompt=PROMPT, max_tokens=8, temperature=0, logprobs=3, echo=True
    ).choices[0]
    scored = openai.completions.create(
        model=fleet.model, prompt=said.text, max_tokens=0, logprobs=3, echo=True
    ).choices[0]
    assert said.text.startswith(PROMPT)
    assert said.logprobs is not None
    assert scored.logprobs is not None
    assert scored.text == said.text
    assert scored.logprobs.tokens == said.logprobs.tokens
    # Whole-number sums: prefill and decode give the same bits.
    assert scored.logprobs.token_logprobs == said.logprobs.token_logprobs
    assert scored.logprobs.top_logprobs == said.logprobs.top_logprobs
    tokens, offsets = said.logprobs.tokens or [], said.logprobs.text_offset or []
    assert all(said.text[at:].startswith(token) for token, at in zip(tokens, offsets, strict=True))


def test_continuations_are_ranked_in_one_request(openai: OpenAI, fleet: Fleet) -> None:
    """Token ids in, one token generated and left out again: the likelier continuation has the larger sum."""
    endings = [" Paris", " banana"]
    whole = openai.completions.create(
        model=fleet.model, prompt=[PROMPT + ending for ending in endings], max_tokens=0, logprobs=1, echo=True
    )
    sums = []
    for choice in whole.choices:
        assert choice.logprobs is not None
        starts = zip(choice.logprobs.text_offset or [], choice.logprobs.token_logprobs or [], strict=True)
        sums.append(sum(logprob for at, logprob in starts if at >= len(PROMPT)))
    assert sums[0] > sums[1]


def test_a_socket_tells_a_real_job_to_its_end(fleet: Fleet) -> None:
    with Client(fleet.url) as client:
        job = client.submit(model=fleet.model, prompt=PROMPT, max_tokens=16, temperature=0)
        with connect(f"{fleet.url.replace('http', 'ws')}/v1/jobs/{job.id}/ws") as socket:
            events = [json.loads(message) for message in socket]
        assert socket.close_code == 1000
        assert "".join(event.get("text", "") for event in events) == job.wait(60).text
