"""Every architecture against transformers, on a tiny random checkpoint that it wrote, and against itself.

reference numerics   the same logits within rounding, at lengths around windows (16) and chunks of keys (64)
exact numerics       near ones; the same bits however the prompt is cut, whatever the pages, in any company
"""

import pytest
import torch

from engine import Engine, EngineConfig, SamplingParams
from tests.parity.pairs import ONE_THREAD, Pair, drawn
from tests.parity.rows import logits, relative_error
from tests.unit.engine.loaders.checkpoints import ARCHITECTURES

LENGTHS = (1, 16, 17, 64, 65, 120)
WINDOWED = ("mistral", "qwen2-windows", "gemma3-long")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reference_numerics_give_the_same_logits(pairs: dict[str, Pair], architecture: str) -> None:
    pair = pairs[architecture]
    ours = pair.ours("reference")
    for length in LENGTHS:
        ids = drawn(length)
        wanted = pair.wanted(ids)
        for cuts in ((length,), (7, 1, 1, 30)):
            found = logits(ours, ids, cuts)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4, msg=f"{length} tokens in cuts of {cuts}")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_exact_numerics_stay_near(pairs: dict[str, Pair], architecture: str) -> None:
    pair = pairs[architecture]
    ours = pair.ours("exact")
    for length in (1, 17, 65, 120):
        ids = drawn(length)
        assert relative_error(logits(ours, ids, (length,)), pair.wanted(ids)) < 0.08, f"{length} tokens"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_cut_and_any_page_give_the_same_bits(pairs: dict[str, Pair], architecture: str) -> None:
    pair, ids = pairs[architecture], drawn(85)
    whole = logits(pair.ours("exact"), ids, (85,))
    for page_size, cuts in ((16, (60, 1)), (1, (7, 1, 1, 30)), (128, (50,))):
        found = logits(pair.ours("exact", page_size), ids, cuts, page_size)
        assert torch.equal(found, whole), f"pages of {page_size}, cuts of {cuts}"


@pytest.mark.parametrize("architecture", WINDOWED)
def test_tokens_are_the_same_in_any_company(pairs: dict[str, Pair], architecture: str) -> None:
    pair = pairs[architecture]
    prompts = [drawn(length) for length in (3, 20, 70, 90)]
    params = SamplingParams(max_tokens=10, temperature=1.0, seed=5, ignore_eos=True)

    def engine(budget: int, pages: int) -> Engine:
        config = EngineConfig(
            pair.folder, device="cpu", backend="torch", max_batched_tokens=budget, num_pages=pages, threads=ONE_THREAD
        )
        return Engine(config)

    together = engine(24, 12).generate(prompts, params)
    alone = engine(128, 40)
    assert together == [alone.generate([prompt], params)[0] for prompt in prompts]
