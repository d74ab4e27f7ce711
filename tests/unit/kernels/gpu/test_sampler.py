"""The sampler of the device: Triton against plain torch bit by bit, and plain torch against the sampler of the host."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.logprobs import explain
from engine.noise import gumbel as host_gumbel
from engine.noise import stream_key
from engine.request import Request, SamplingParams
from engine.sampler import choose
from kernels.gpu import sampler
from kernels.reference import sampling
from kernels.reference.gumbel import gumbel
from kernels.reference.sampling_table import NO_TOKEN, Sampled, SamplingTable
from tests.unit.kernels.gpu.sampling_rows import ROWS, VOCAB, Row, buffers, table_of

# Three tiles of VOCAB, the last one not full.
TILE = 64


def drawn(rows: int, vocab: int = VOCAB, seed: int = 0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


def by_triton(logits: Tensor, rows: list[Row]) -> tuple[Tensor, Sampled, SamplingTable]:
    table, (scores, sampled) = table_of(rows, logits.shape[1]), buffers(*logits.shape)
    sampler.sample(logits, table, scores, sampled)
    return scores, sampled, table


def by_reference(logits: Tensor, rows: list[Row]) -> tuple[Tensor, Sampled, SamplingTable]:
    table, (scores, sampled) = table_of(rows, logits.shape[1]), buffers(*logits.shape)
    sampling.sample(logits, table, scores, sampled)
    return scores, sampled, table


@pytest.fixture(autouse=True)
def several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "_TILE", TILE)


def test_every_step_has_the_bits_of_the_reference() -> None:
    logits = drawn(len(ROWS))
    scores, sampled, table = by_triton(logits, ROWS)
    wanted_scores, wanted, wanted_table = by_reference(logits, ROWS)
    assert torch.equal(scores, wanted_scores)
    for field in fields(Sampled):
        assert torch.equal(getattr(sampled, field.name), getattr(wanted, field.name)), field.name
    assert torch.equal(table.history, wanted_table.history)
    assert int(table.history.sum()) == int(table_of(ROWS).history.sum()) + 2 * 3  # three rows keep one


def test_a_row_is_the_same_alone_and_in_company() -> None:
    logits = drawn(len(ROWS)).half()
    together = by_reference(logits, ROWS)[1].token_ids
    assert by_triton(logits[1:2], ROWS[1:2])[1].token_ids == together[1]
    assert by_triton(logits[:1], ROWS[:1])[1].token_ids == together[0]


def test_equal_scores_go_to_the_lowest_ids() -> None:
    logits = torch.zeros(2, 5)
    logits[0, [1, 3]] = 2.0
    rows = [Row(temperature=0.0, alternatives=4), Row(top_k=2, seed=1)]
    _, sampled, _ = by_triton(logits, rows)
    assert sampled.token_ids[0] == 1
    assert sampled.top_ids[0, :5].tolist() == [1, 3, 0, 2, -1]
    left = {int(by_reference(logits[1:], [replace(rows[1], seed=seed)])[1].token_ids) for seed in range(30)}
    assert left == {0, 1}
    assert int(sampled.token_ids[1]) in left


@pytest.mark.parametrize("poison", [math.nan, -math.nan, math.inf, -math.inf])
def test_a_row_without_a_token_says_so_and_its_neighbour_has_its_own(poison: float) -> None:
    logits = drawn(3, 40)
    logits[0, 17] = poison
    rows = [Row(bias=((17, 1.0),), barred=(17,)), Row(allowed=()), Row(temperature=0.0)]
    for _, sampled, _ in (by_triton(logits, rows), by_reference(logits, rows)):
        assert sampled.token_ids.tolist() == [NO_TOKEN, NO_TOKEN, int(logits[2].argmax())]


def test_no_more_alternatives_than_tokens() -> None:
    logits = drawn(1, 3)
    _, sampled, _ = by_triton(logits, [Row(temperature=0.0, alternatives=20)])
    assert sampled.top_ids[0, 3:].eq(-1).all()
    torch.testing.assert_close(sampled.top_logprobs[0, :3].exp().sum(), torch.tensor(1.0))


def test_noise_is_the_hosts_to_float32() -> None:
    token_ids = torch.arange(150_000)
    for seed, offset in ((0, 0), ((1 << 64) - 1, 12_345)):
        ours = gumbel(stream_key(seed, 2), offset, token_ids).double().numpy()
        np.testing.assert_allclose(ours, host_gumbel(seed, 2, offset, token_ids.numpy()), rtol=1e-7, atol=1e-6)


SAMPLING = [
    Row(temperature=0.8, seed=9, alternatives=20),
    Row(top_k=40, seed=1, alternatives=0),
    Row(top_p=0.9, temperature=0.6, seed=2),
    Row(min_p=0.1, seed=3),
    Row(top_k=20, top_p=0.8, temperature=0.7, seed=4, prompt=(1, 2, 3), output=(4, 4), repetition=1.1, presence=0.5),
    Row(temperature=0.0, bias=((7, 100.0),), barred=(8,), alternatives=5),
]


@pytest.mark.parametrize("row", SAMPLING)
def test_the_reference_chooses_what_the_host_chooses(row: Row) -> None:
    logits = drawn(20, 3000, seed=row.seed)
    rows = [replace(row, offset=len(row.output), seed=row.seed + 100 * index) for index in range(20)]
    _, sampled, _ = by_reference(logits, rows)
    for index, each in enumerate(rows):
        values = logits[index].numpy()
        assert int(sampled.token_ids[index]) == choose(values, request_of(each))
        if row.alternatives >= 0:
            wanted = explain(values, int(sampled.token_ids[index]), row.alternatives)
            assert sampled.top_ids[index, : row.alternatives].tolist() == [token_id for token_id, _ in wanted.top]
            assert float(sampled.logprobs[index]) == pytest.approx(wanted.logprob, abs=1e-5)
            ours = sampled.top_logprobs[index, : row.alternatives].tolist()
            assert ours == pytest.approx([logprob for _, logprob in wanted.top], abs=1e-5)


def request_of(row: Row) -> Request:
    params = SamplingParams(
        max_tokens=100,
        temperature=row.temperature,
        top_k=row.top_k,
        top_p=row.top_p,
        min_p=row.min_p,
        repetition_penalty=row.repetition,
        frequency_penalty=row.frequency,
        presence_penalty=row.presence,
        seed=row.seed,
        logit_bias=dict(row.bias),
        bad_words=tuple((token_id,) for token_id in row.barred),
    )
    return Request(
        id="row",
        params=params,
        ids=[*row.prompt, *row.output],
        prompt_length=len(row.prompt),
        due=0.0,
        arrival=0,
        end_ids=frozenset(),
    )
