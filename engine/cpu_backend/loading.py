"""Builds the fused CPU model: whether this machine can, and from where its packed weights come."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from engine.batch import PageLayout
from engine.config import EngineConfig
from engine.cores import available_cores
from engine.cpu_backend.compiled_code import CompilesAhead, keep_compiled_code
from engine.cpu_backend.packing import ArrayLayout, Arrays, kept_as_levels, layout, pack
from engine.cpu_backend.weight_file import mapped_weights, own_weights
from engine.digest import sources_digest
from engine.loaders.checkpoint import Checkpoint
from engine.models.key_balance import balanced
from engine.models.shape import ModelShape
from engine.sizing import SMALL_MODEL

if TYPE_CHECKING:
    from engine.cpu_backend.model import CpuDecoder

_PACKERS: Final = ("cpu_backend", "loaders", "models")  # packages of engine/ that have a hand in packed bytes
_WORTH_KEEPING: Final = 32 << 20  # smaller models are packed again sooner than a file is looked for and cleaned up


def unsupported(config: EngineConfig, shape: ModelShape) -> str | None:
    """Why this backend cannot run here, or None when it can."""
    if config.numerics != "exact":
        return f"it has no numerics {config.numerics!r}"
    if find_spec("numba") is None:
        return "numba is not installed"
    from kernels.cpu.compiling import has_vnni

    if not has_vnni():
        return "this CPU has no AVX-512 VNNI"
    keep_compiled_code(_cache_dir(config))
    from engine.cpu_backend.self_test import levels_are_exact, products_are_exact
    from kernels.cpu.attention import BLOCK

    if config.page_size % BLOCK:
        return f"it needs pages of a multiple of {BLOCK} tokens, not {config.page_size}"
    exact = products_are_exact(shape.product_widths) and levels_are_exact()
    return None if exact else "its int8 products are not exact on this machine"


def load_cpu_model(
    config: EngineConfig, checkpoint: Checkpoint, shape: ModelShape, revision: str, pages: PageLayout, max_context: int
) -> "CpuDecoder":
    """Ready to step: compiled, too. Raises ModelFileError. Ask `unsupported` first."""
    cache = _cache_dir(config)
    sources = keep_compiled_code(cache)
    with CompilesAhead():
        weights = _weights(cache, balanced(checkpoint, shape), shape, revision)
        from engine.cpu_backend.model import CpuDecoder

        threads = config.threads or available_cores()
        decoder = CpuDecoder(weights, shape, pages, max_context, threads, _identity(sources))
        decoder.warm()
    return decoder


def _weights(cache: Path, checkpoint: Checkpoint, shape: ModelShape, revision: str) -> Arrays:
    """Packed now, or by an earlier start. Those of a small model lie in large pages of each process's own, and where
    they are levels, as bytes too, which are faster for many rows."""
    tied = not checkpoint.has("output")
    small = _bytes_of(layout(shape, tied=tied)) < SMALL_MODEL
    arrays = layout(shape, tied=tied, levels=kept_as_levels(checkpoint, shape), both=small)

    def fill(into: Arrays) -> None:
        pack(checkpoint, shape, into)

    if _bytes_of(arrays) < _WORTH_KEEPING:
        return own_weights(arrays, fill)
    return mapped_weights(cache / f"{revision[:32]}.packed", _packed_name(revision), arrays, fill, copied=small)


def _packed_name(revision: str) -> dict[str, str]:
    """Of all that may change a packed byte: the file, the sources that unpack, even out and pack it, and their library.
    A file of another name is made anew."""
    engine = Path(__file__).parents[1]
    sources = sources_digest(engine / package for package in _PACKERS)
    return {"revision": revision, "packers": sources, "numpy": np.__version__}


def _bytes_of(arrays: Mapping[str, ArrayLayout]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _cache_dir(config: EngineConfig) -> Path:
    return config.cache_dir or Path.home() / ".cache" / "headrace" / "engine"


def _identity(sources: str) -> dict[str, str]:
    from kernels.cpu.compiling import versions

    return {
        "backend": "cpu",
        "numerics": "exact",
        "kernels": sources,
        "device": "avx512vnni",  # all operations are pinned by IEEE 754 or whole: one CPU of the kind is like another
        **versions(),
    }
