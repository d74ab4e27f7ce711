"""Which tensors a model of given sizes is made of, and whether a file has exactly those; knows no names of files."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from engine.errors import ModelFileError
from engine.loaders.files import corrupt
from engine.loaders.tensors import TensorInfo
from engine.models.shape import ModelShape

Shape = tuple[int, ...]

_SMALL_TABLES: Final = 256 << 20
_FLOAT_BYTES: Final = 4


def name_of(names: Mapping[str, str], role: str, layer: int | None) -> str | None:
    """What a file calls a tensor: `names` maps roles to names with a place for the layer. None: it has no such role."""
    pattern = names.get(role)
    return pattern if pattern is None or layer is None else pattern.format(layer=layer)


def check_inventory(
    tensors: Mapping[str, TensorInfo],
    names: Mapping[str, str],
    shape: ModelShape,
    path: Path,
    *,
    own_output: bool,
    ignored: tuple[str, ...] = (),
) -> None:
    """Every tensor that the sizes ask for is there in its shape, and no other that would change the result.

    `own_output` says whether the output layer has weights of its own; `ignored` are endings of names that may lie in
    the file unread. Raises ModelFileError.
    """
    _check_context(tensors.values(), shape, path)
    wanted = {name_of(names, role, layer): extents for role, layer, extents in model_weights(shape, own_output)}
    for name, extents in wanted.items():
        info = tensors.get(name) if name is not None else None
        if info is None or info.shape != extents:
            found = "missing" if info is None else f"of shape {info.shape}"
            raise corrupt(path, f"tensor {name!r} is {found}; its metadata asks for {extents}")
    for name in tensors:
        if name not in wanted and not name.endswith(ignored):
            raise ModelFileError(
                f"model file {path}",
                f"tensor {name[:120]!r} is no part of its architecture as this engine computes it",
                "use a model of a supported kind",
                code="model_unsupported",
            )


def _check_context(tensors: Iterable[TensorInfo], shape: ModelShape, path: Path) -> None:
    """No tensor says how long a context is, and tables are made for it: larger than the weights, it is a lie."""
    weights = sum(tensor.nbytes for tensor in tensors)
    tables = shape.context_length * shape.head_dim * _FLOAT_BYTES * len(shape.rotaries)
    if tables > max(weights, _SMALL_TABLES):
        raise corrupt(
            path,
            f"a context of {shape.context_length} tokens needs tables of {tables} bytes beside {weights} of weights",
        )


def model_weights(shape: ModelShape, own_output: bool) -> Iterator[tuple[str, int | None, Shape]]:
    """(role, layer, shape) of every tensor. Linear weights are [out, in]."""
    hidden = shape.hidden_size
    yield "embedding", None, (shape.vocab_size, hidden)
    yield "final_norm", None, (hidden,)
    if own_output:
        yield "output", None, (shape.vocab_size, hidden)
    each_layer = _layer_weights(shape)
    for layer in range(shape.num_layers):
        for role, extents in each_layer.items():
            yield role, layer, extents


def _layer_weights(shape: ModelShape) -> dict[str, Shape]:
    hidden, ffn, query, kv = shape.hidden_size, shape.ffn_size, shape.query_size, shape.kv_size
    weights: dict[str, Shape] = {
        "attention_norm": (hidden,),
        "q": (query, hidden),
        "k": (kv, hidden),
        "v": (kv, hidden),
        "o": (hidden, query),
        "mlp_norm": (hidden,),
        "gate": (ffn, hidden),
        "up": (ffn, hidden),
        "down": (hidden, ffn),
    }
    if shape.qkv_bias:
        weights |= {"q_bias": (query,), "k_bias": (kv,), "v_bias": (kv,)}
    if shape.qk_norm:
        weights |= {"q_norm": (shape.head_dim,), "k_norm": (shape.head_dim,)}
    if shape.post_norms:
        weights |= {"attention_post_norm": (hidden,), "mlp_post_norm": (hidden,)}
    return weights
