"""Every architecture against transformers, on a tiny random checkpoint that it wrote, and against itself.

reference numerics   the same logits within rounding, at lengths around windows (16) and chunks of keys (64)
exact numerics       near ones; the same bits however the prompt is cut, whatever the pages, in any company
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from engine import Engine, EngineConfig, SamplingParams
from engine.loading import load_model
from engine.models.causal_lm import CausalLM
from tests.parity.rows import logits, relative_error
from tests.tiny_model import VOCAB_SIZE
from tests.unit.engine.loaders.checkpoints import ARCHITECTURES, random_model, write_checkpoint

LENGTHS = (1, 16, 17, 64, 65, 120)
WINDOWED = ("mistral", "qwen2-windows", "gemma3-long")
ONE_THREAD = 1


@dataclass(frozen=True, slots=True)
class Pair:
    """A model of theirs and the folder that it was saved in."""

    theirs: PreTrainedModel
    folder: Path

    def ours(self, numerics: str, page_size: int = 16) -> CausalLM:
        config = EngineConfig(
            self.folder,
            device="cpu",
            backend="torch",
            numerics=numerics,
            page_size=page_size,
            num_pages=128 // page_size + 1,
            threads=ONE_THREAD,
        )
        return load_model(config).model

    def wanted(self, ids: list[int]) -> Tensor:
        """[positions, vocab]"""
        with torch.inference_mode():
            rows: Tensor = self.theirs(torch.tensor([ids])).logits[0]
        return rows


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    torch.set_num_threads(ONE_THREAD)
    return {name: random_pair(name, tmp_path_factory.mktemp("parity") / name) for name in ARCHITECTURES}


def random_pair(architecture: str, folder: Path) -> Pair:
    model = random_model(architecture, seed=7)
    model.train(False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(7.0)  # as initialised, attention would look everywhere alike
            elif "norm" in name and "gemma" not in architecture:
                parameter.add_(1.0)
    return Pair(model, write_checkpoint(model, folder))


def drawn(count: int) -> list[int]:
    return torch.randint(0, VOCAB_SIZE, (count,), generator=torch.Generator().manual_seed(count)).tolist()


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
