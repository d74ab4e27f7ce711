"""The fused CPU backend against transformers, for every architecture: as near as the portable decoder in the same
numerics, and near enough that any option read wrong would show."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from engine import Engine, EngineConfig, SamplingParams
from engine.batch import PageLayout
from engine.cpu_backend.loading import load_cpu_model, unsupported
from engine.loaders import open_model
from engine.models.causal_lm import CausalLM
from engine.models.shape import ModelShape, RotaryShape
from tests.parity.pairs import CONTEXT, ONE_THREAD, Pair, drawn
from tests.parity.rows import logits
from tests.unit.engine.loaders.checkpoints import ARCHITECTURES

pytest.importorskip("numba")
TEXTS = tuple(drawn(length) for length in (1, 17, 65, 120))
NO_FURTHER, NO_ROW_FURTHER = 1.1, 3.0  # than the portable decoder
GREEDY = SamplingParams(max_tokens=16, temperature=0.0, ignore_eos=True)
Misreading = Callable[[ModelShape], ModelShape]


@dataclass(frozen=True, slots=True)
class Measure:
    """How far logits are from theirs, in distances of the portable decoder's."""

    portable: tuple[Tensor, ...]
    wanted: tuple[Tensor, ...]

    def further(self, model: CausalLM) -> tuple[float, float]:
        """All rows of all texts together, and the worst row."""
        ours = [logits(model, ids, (len(ids),)) for ids in TEXTS]
        mine, theirs = _distances(ours, self.wanted), _distances(self.portable, self.wanted)
        return float(mine.norm() / theirs.norm()), float((mine / theirs).max())


def _distances(found: tuple[Tensor, ...] | list[Tensor], wanted: tuple[Tensor, ...]) -> Tensor:
    """|found - wanted| of each row.  # [rows]"""
    return torch.cat([(one - other).norm(dim=1) for one, other in zip(found, wanted, strict=True)])


@pytest.fixture(scope="module", autouse=True)
def _where_it_runs(pairs: dict[str, Pair]) -> None:
    config = EngineConfig("none")
    with open_model(pairs["llama"].folder) as opened:
        why = unsupported(config, opened.shape)
    if why:
        pytest.skip(f"the fused backend does not run here: {why}")


@pytest.fixture(scope="module")
def measures(pairs: dict[str, Pair]) -> dict[str, Measure]:
    found = {}
    for name, pair in pairs.items():
        portable = pair.ours("exact")
        rows = tuple(logits(portable, ids, (len(ids),)) for ids in TEXTS)
        found[name] = Measure(rows, tuple(pair.wanted(ids) for ids in TEXTS))
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_as_near_as_the_portable_decoders(
    pairs: dict[str, Pair], measures: dict[str, Measure], architecture: str
) -> None:
    whole, worst_row = measures[architecture].further(pairs[architecture].ours("exact", backend="cpu"))
    assert whole < NO_FURTHER
    assert worst_row < NO_ROW_FURTHER


def windows_of(difference: int) -> Misreading:
    return lambda shape: replace(
        shape, layer_windows=tuple(window and window + difference for window in shape.layer_windows)
    )


def last_layer_sees_otherwise(shape: ModelShape) -> ModelShape:
    last = None if shape.layer_windows[-1] else 16
    return replace(shape, layer_windows=(*shape.layer_windows[:-1], last))


def rotaries_of(change: Callable[[RotaryShape], RotaryShape]) -> Misreading:
    return lambda shape: replace(shape, rotaries=tuple(change(rotary) for rotary in shape.rotaries))


def rotaries_one_layer_late(shape: ModelShape) -> ModelShape:
    return replace(shape, layer_rotary=(*shape.layer_rotary[1:], shape.layer_rotary[0]))


def without(**options: object) -> Misreading:
    return lambda shape: replace(shape, **options)  # type: ignore[arg-type]


MISREADINGS: dict[str, tuple[str, Misreading]] = {
    "mistral: windows one wider": ("mistral", windows_of(1)),
    "qwen2: windows one narrower": ("qwen2-windows", windows_of(-1)),
    "gemma3: windows one wider": ("gemma3", windows_of(1)),
    "llama: a window in one layer": ("llama", last_layer_sees_otherwise),
    "llama: a faster rotary": ("llama", rotaries_of(lambda rotary: replace(rotary, theta=rotary.theta * 1.5))),
    "llama3: no scaling": ("llama3", rotaries_of(lambda rotary: replace(rotary, factors=None))),
    "llama3: linear scaling": ("llama3", rotaries_of(lambda rotary: replace(rotary, factors=(8.0,) * 8))),
    "gemma3: no scaling": ("gemma3-long", rotaries_of(lambda rotary: replace(rotary, factors=None))),
    "gemma3: rotaries of the wrong layers": ("gemma3", rotaries_one_layer_late),
    "gemma3: scores by the head's width": ("gemma3", without(attention_scale=None)),
    "gemma3: embeddings as they are": ("gemma3", without(embedding_scale=1.0)),
    "gemma3: SiLU": ("gemma3", without(activation="silu")),
    "gemma3: no post norms": ("gemma3", without(post_norms=False)),
    "qwen3: no norms of heads": ("qwen3", without(qk_norm=False)),
    "qwen2: no biases": ("qwen2", without(qkv_bias=False)),
    "llama: another epsilon": ("llama", without(rms_eps=1e-3)),
}


@pytest.mark.parametrize("misreading", MISREADINGS)
def test_an_option_read_wrong_would_show(pairs: dict[str, Pair], measures: dict[str, Measure], misreading: str) -> None:
    architecture, wrong = MISREADINGS[misreading]
    pair = pairs[architecture]
    config = EngineConfig(pair.folder, threads=ONE_THREAD)
    with open_model(pair.folder) as opened:
        shape = wrong(opened.shape)
        assert shape != opened.shape
        model = load_cpu_model(config, opened.weights, shape, "misread", PageLayout(10, 16), CONTEXT)
    whole, worst_row = measures[architecture].further(model)
    assert whole > NO_FURTHER or worst_row > NO_ROW_FURTHER


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_cut_page_and_team_give_the_same_bits(pairs: dict[str, Pair], architecture: str) -> None:
    pair, ids = pairs[architecture], drawn(120)
    whole = logits(pair.ours("exact", backend="cpu"), ids, (120,))
    for page_size, threads, cuts in ((16, 1, (49, 1)), (32, 2, (7, 1, 1, 30)), (16, 2, (120,)), (128, 1, (97, 5))):
        found = logits(pair.ours("exact", page_size, backend="cpu", threads=threads), ids, cuts, page_size)
        assert torch.equal(found, whole), f"pages of {page_size}, {threads} threads, cuts of {cuts}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_tokens_are_theirs_where_they_are_sure(
    pairs: dict[str, Pair], measures: dict[str, Measure], architecture: str
) -> None:
    """Sure is a token whose logit leads by more than the portable decoder's numerics move any."""
    pair, measure = pairs[architecture], measures[architecture]
    moved = max(float((one - other).abs().max()) for one, other in zip(measure.portable, measure.wanted, strict=True))
    config = EngineConfig(pair.folder, device="cpu", backend="cpu", num_pages=20, max_batched_tokens=24, threads=1)
    prompts = [drawn(length) for length in (3, 20, 70)]
    sure = 0
    for prompt, ours in zip(prompts, Engine(config).generate(prompts, GREEDY), strict=True):
        rows = pair.wanted([*prompt, *ours.token_ids])[len(prompt) - 1 : -1]
        behind = rows.max(dim=1).values - rows.gather(1, torch.tensor(ours.token_ids)[:, None])[:, 0]
        assert (behind < moved).all()
        first, second = rows.topk(2).values.T
        sure += int((first - second > moved).sum())
    assert sure >= 12


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tokens_are_the_same_in_any_company(pairs: dict[str, Pair], architecture: str) -> None:
    pair = pairs[architecture]
    prompts = [drawn(length) for length in (3, 20, 70, 90)]
    params = SamplingParams(max_tokens=10, temperature=1.0, seed=5, ignore_eos=True)

    def engine(budget: int, pages: int, threads: int) -> Engine:
        config = EngineConfig(
            pair.folder,
            device="cpu",
            backend="cpu",
            max_batched_tokens=budget,
            num_pages=pages,
            threads=threads,
            step_seconds=None,
        )
        return Engine(config)

    together = engine(24, 12, threads=1).generate(prompts, params)
    alone = engine(128, 40, threads=2)
    assert together == [alone.generate([prompt], params)[0] for prompt in prompts]
