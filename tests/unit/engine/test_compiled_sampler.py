"""The fast sampler against the plain one, bit for bit; and what it remembers between steps changes nothing."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.compiled_sampler import CompiledSampler
from engine.elementary import log, weights
from engine.noise import gumbel, stream_key
from engine.request import Request, SamplingParams
from engine.sampler import host_sampler
from kernels.cpu import compiling, sampling, sampling_borders, sampling_draw, sampling_elementary
from tests.unit.engine.sampler_twins import differing

DRAWN = SamplingParams(max_tokens=64, temperature=1.0)


@pytest.fixture(scope="module")
def samplers() -> dict[int, CompiledSampler]:
    return {}


@pytest.mark.parametrize("seed", range(60))
def test_both_samplers_agree(seed: int, samplers: dict[int, CompiledSampler]) -> None:
    rows, wrong = differing(seed, samplers)
    assert rows > 0
    assert wrong == 0


gaps = arrays.arrays(np.float64, st.integers(1, 20), elements=st.floats(-60, 0) | st.sampled_from([-0.0, -np.inf]))


@given(gaps)
@settings(max_examples=50, deadline=None)
def test_weights_have_the_same_bits(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    room = sampling.new_room(1, 64)
    masses = room[3][0]
    total = sampling_borders.weigh(values, masses, len(values), 0.0, 1.0)
    assert masses[: len(values)].tolist() == weights(values).tolist()
    assert total == weights(values).sum()


def test_logarithms_and_noise_have_the_same_bits() -> None:
    numbers = np.concatenate(
        (np.random.default_rng(0).random(2000), 2.0 ** np.arange(-53, 6), 1 - 2.0 ** -np.arange(1, 54))
    )
    assert [sampling_elementary.log(number) for number in numbers] == log(numbers).tolist()
    key = sampling_draw.noise_key(np.uint64(stream_key(7, 2)), np.uint64(5))
    noise = [sampling_draw.gumbel(np.uint64(sampling_draw.random_bits(np.uint64(key), token))) for token in range(2000)]
    assert noise == gumbel(7, 2, 5, np.arange(2000)).tolist()


def test_the_most_and_the_least_noise_are_finite() -> None:
    most, least = (sampling_draw.gumbel(np.uint64(bits)) for bits in ((1 << 64) - 1, 0))
    assert most == pytest.approx(53 * np.log(2), rel=1e-9)
    assert most < sampling_draw.MOST_NOISE
    assert least == pytest.approx(-np.log(53 * np.log(2)), rel=1e-9)


@given(st.floats(-3, 36.5), st.integers(0, 2**64 - 1))
@settings(max_examples=300, deadline=None)
def test_no_random_number_below_the_least_gives_as_much_noise(needed: float, bits: int) -> None:
    least = int(sampling_draw.least_random(needed))
    for random in (bits, least - 1, least - (1 << 12), least // 2):
        if 0 <= random < least:
            assert sampling_draw.gumbel(np.uint64(random)) < needed


def test_counts_kept_between_steps_are_those_counted_anew() -> None:
    """One sampler sees a request grow, the other meets it anew at every step, as after a preemption or a resume."""
    params = replace(DRAWN, frequency_penalty=0.9, presence_penalty=0.3, repetition_penalty=1.2, min_tokens=9)
    grows = Request("r", replace(params, bad_words=((3, 4), (5,))), [1, 2, 2], 3, 0, 0, frozenset({0}))
    keeps, generator = CompiledSampler(8, 1), np.random.default_rng(0)
    for step in range(30):
        logits = generator.normal(0, 1, (1, 8)).astype(np.float32)
        anew = Request("r", grows.params, list(grows.ids), 3, 0, 0, grows.end_ids)
        token = keeps.sample(logits, [grows]).tokens["r"]
        assert token == CompiledSampler(8, 1).sample(logits, [anew]).tokens["r"], step
        grows.ids.append(token)


def test_requests_may_come_leave_and_change_places_between_steps() -> None:
    kinds = [DRAWN, replace(DRAWN, temperature=0), replace(DRAWN, top_k=2), replace(DRAWN, presence_penalty=0.5)]
    requests = [Request(f"{n}", replace(kind, seed=n), [n], 1, 0, 0, frozenset()) for n, kind in enumerate(kinds)]
    keeps, generator = CompiledSampler(30, 1), np.random.default_rng(0)
    for order in ((0, 1, 2, 3), (0, 1, 2, 3), (3, 1, 2, 0), (3, 1), (), (1, 3), (2, 1, 3, 0)):
        batch = [requests[number] for number in order]
        logits = generator.normal(0, 2, (len(batch), 30)).astype(np.float32)
        sampled = keeps.sample(logits, batch)
        assert sampled == CompiledSampler(30, 1).sample(logits, batch)
        assert [*sampled.tokens] == [request.id for request in batch]
        for request in batch:
            request.ids.append(sampled.tokens[request.id])


def test_another_request_of_the_same_name_is_another() -> None:
    sampler, logits = CompiledSampler(3, 1), np.array([[1.0, 2.0, 3.0]], dtype=np.float32)
    first = Request("r", SamplingParams(max_tokens=1, temperature=0, logit_bias={0: 9.0}), [0], 1, 0, 0, frozenset())
    second = Request("r", SamplingParams(max_tokens=1, temperature=0), [0], 1, 0, 0, frozenset())
    assert sampler.sample(logits, [first]).tokens == {"r": 0}
    assert sampler.sample(logits, [second]).tokens == {"r": 2}


def test_threads_change_nothing() -> None:
    vocab_size, generator = 50_000, np.random.default_rng(1)
    logits = generator.normal(0, 2, (9, vocab_size)).astype(np.float32)
    requests = [
        Request(f"{n}", replace(DRAWN, seed=n, top_p=0.9, logprobs=3), [n], 1, 0, 0, frozenset()) for n in range(9)
    ]
    alone, together = (CompiledSampler(vocab_size, threads).sample(logits, requests) for threads in (1, 4))
    assert alone == together
    assert len(together.tokens) == 9


def test_compiled_code_is_kept_where_the_engine_was_told(tmp_path: Path) -> None:
    """By every backend that samples on the host, not by the one alone that compiles its steps too."""
    before = compiling.kept_in().parent
    try:
        host_sampler(64, 1, tmp_path)
        assert compiling.kept_in().parent == tmp_path
    finally:
        compiling.keep_in(before)


def test_importing_the_engine_imports_no_backend() -> None:
    """Whoever only asks for a name should not wait for a compiler."""
    program = "import sys, engine; sys.exit(bool({'torch', 'numba'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
