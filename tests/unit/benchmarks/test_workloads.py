"""What engines are asked: lengths that never change, prompts that never come back."""

import pytest

from benchmarks.workloads import WORKLOADS, output_tokens, warm_up


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_seed_draws_the_same_requests_again(name: str) -> None:
    assert WORKLOADS[name].draw("openvino/0") == WORKLOADS[name].draw("openvino/0")


@pytest.mark.parametrize("name", WORKLOADS)
def test_another_seed_draws_other_tokens_of_the_same_lengths(name: str) -> None:
    one, other = WORKLOADS[name].draw("openvino/0"), WORKLOADS[name].draw("openvino/1")
    assert [(len(ask.prompt), ask.new_tokens) for ask in one] == [(len(ask.prompt), ask.new_tokens) for ask in other]
    assert not {ask.prompt[:16] for ask in one} & {ask.prompt[:16] for ask in other}


@pytest.mark.parametrize("count", [1, 8, 16, 32])
def test_uniform_requests_are_alone_with_their_prompts(count: int) -> None:
    asks = WORKLOADS[f"n{count}"].draw("x")
    assert [(len(ask.prompt), ask.new_tokens) for ask in asks] == [(128, 64)] * count
    assert len({ask.prompt[:16] for ask in asks}) == count
    assert output_tokens(asks) == 64 * count


def test_skewed_requests_keep_to_their_bounds_and_differ() -> None:
    asks = WORKLOADS["skewed"].draw("x")
    assert len(asks) == 48
    assert all(20 <= len(ask.prompt) <= 800 and 10 <= ask.new_tokens <= 200 for ask in asks)
    assert len({len(ask.prompt) for ask in asks}) > 24


def test_requests_with_a_shared_prefix_share_exactly_that() -> None:
    asks = WORKLOADS["prefix"].draw("x")
    assert len({ask.prompt[:512] for ask in asks}) == 1
    assert len({ask.prompt[512:] for ask in asks}) == len(asks) == 32


def test_warming_up_asks_for_as_many_short_requests() -> None:
    short = warm_up(WORKLOADS["skewed"])
    assert len(short) == 48
    assert output_tokens(short) < output_tokens(WORKLOADS["skewed"].draw("x"))
    assert not {ask.prompt[:16] for ask in short} & {ask.prompt[:16] for ask in WORKLOADS["skewed"].draw("x")}
