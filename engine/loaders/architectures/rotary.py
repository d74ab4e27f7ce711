"""Reads how positions become angles out of a Hugging Face config: base, and the scaling that stretches a context."""

import math

from engine.loaders.architectures.limits import MAX_CONTEXT, MAX_FACTOR, MAX_THETA
from engine.loaders.metadata import Metadata
from engine.models.shape import RotaryShape

DEFAULT_THETA = 10_000.0


def rotary_of(config: Metadata, head_dim: int, context: int, *, layer_type: str | None = None) -> RotaryShape:
    """The rotation of a model, or of its layers of one type. Reads both ways of writing it:

    `rope_parameters` of today, for all layers or by layer type, and `rope_theta` beside `rope_scaling` of before.

    Raises ModelFileError for scalings that change with the length of the text or turn a part of a head only.
    """
    parameters = config.section("rope_parameters")
    if parameters is not None and layer_type is not None and parameters.has(layer_type):
        parameters = parameters.section(layer_type)
    if parameters is not None and parameters.has("rope_theta"):
        theta = parameters.real("rope_theta", 1.0, MAX_THETA)
    else:
        theta = config.real("rope_theta", 1.0, MAX_THETA, default=DEFAULT_THETA)
    scaling = parameters if parameters is not None else config.section("rope_scaling")
    for place in (config, scaling):
        if place is not None and place.real("partial_rotary_factor", 0.0, 1.0, default=1.0) != 1.0:
            raise config.fail("it rotates only a part of each head", unsupported=True)
    return RotaryShape(theta, None if scaling is None else _factors(scaling, theta, head_dim, context))


def linear_factors(factor: float, head_dim: int) -> tuple[float, ...] | None:
    """Positions divided by `factor`, which is the same as every angle divided by it."""
    return None if factor == 1.0 else (factor,) * (head_dim // 2)


def llama3_factors(
    theta: float, head_dim: int, *, factor: float, low: float, high: float, trained_context: float
) -> tuple[float, ...]:
    """What Llama 3.1 divides its angles by: nothing for short waves, `factor` for long ones, a slope between.

    `low` and `high` count the waves that fit into the context of the first training: fewer than `low` makes a wave
    long, more than `high` short. Source: the Llama 3.1 model card's reference code.
    """
    factors = []
    for pair in range(head_dim // 2):
        waves = trained_context * theta ** (-2 * pair / head_dim) / (2 * math.pi)
        share = min(1.0, max(0.0, (waves - low) / (high - low)))  # of the unscaled angle
        factors.append(1.0 / ((1.0 - share) / factor + share))
    return tuple(factors)


def _factors(scaling: Metadata, theta: float, head_dim: int, context: int) -> tuple[float, ...] | None:
    kind = scaling.text("rope_type", scaling.text("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return linear_factors(scaling.real("factor", 1 / MAX_FACTOR, MAX_FACTOR), head_dim)
    if kind != "llama3":
        raise scaling.fail(
            f"its positions are scaled in the way {kind[:40]!r}; known are linear and llama3", unsupported=True
        )
    low = scaling.real("low_freq_factor", 1 / MAX_FACTOR, MAX_FACTOR)
    high = scaling.real("high_freq_factor", 1 / MAX_FACTOR, MAX_FACTOR)
    if high <= low:
        raise scaling.fail(f"'high_freq_factor' {high:g} is not above 'low_freq_factor' {low:g}")
    return llama3_factors(
        theta,
        head_dim,
        factor=scaling.real("factor", 1 / MAX_FACTOR, MAX_FACTOR),
        low=low,
        high=high,
        trained_context=scaling.size("original_max_position_embeddings", MAX_CONTEXT, default=context),
    )
