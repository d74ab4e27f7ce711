"""Builds the fused GPU model: whether this machine can, how much memory its device has, and the runner over it."""

import json
from importlib.metadata import version
from importlib.util import find_spec
from typing import Final

import torch

from engine.batch import PageLayout
from engine.config import EngineConfig
from engine.cuda_backend.decoder import MOST_WORKSPACE, Decoder
from engine.cuda_backend.graphs import Launcher, launcher_for
from engine.cuda_backend.numerics import NUMERICS
from engine.cuda_backend.operations import operations
from engine.cuda_backend.proof import products_are_exact
from engine.cuda_backend.runner import CudaRunner
from engine.cuda_backend.step_memory import Room
from engine.cuda_backend.weights import DecoderWeights, load_weights
from engine.loaders.checkpoint import Checkpoint
from engine.memory import Memory
from engine.models.shape import ModelShape
from kernels.dispatch import table_names

KERNELS: Final = "cuda"
_GRAPHS: Final = 256 << 20
_OLDEST: Final = (8, 0)  # compute capability: bfloat16, and tensor cores for int8 as these kernels use them


def unsupported(config: EngineConfig, shape: ModelShape) -> str | None:
    """Why this backend cannot run here, or None when it can."""
    if config.numerics != "exact":
        return f"it has no numerics {config.numerics!r}"
    if find_spec("triton") is None:
        return "triton is not installed"
    why = _no_device(config)
    if why is not None:
        return why
    exact = products_are_exact(operations(KERNELS), _device(config), shape.product_widths)
    return None if exact else "its int8 products are not exact on this machine"


def load_cuda_model(
    config: EngineConfig, checkpoint: Checkpoint, shape: ModelShape, pages: PageLayout, max_context: int
) -> CudaRunner:
    """Raises ModelFileError. Ask `unsupported` first."""
    device = _device(config)
    with torch.inference_mode():
        weights = load_weights(checkpoint, shape, device)
    runner = build_runner(config, weights, shape, config.numerics, pages, max_context, device)
    if device.type == "cuda":
        runner.warm_up()
    return runner


def build_runner(
    config: EngineConfig,
    weights: DecoderWeights,
    shape: ModelShape,
    numerics: str,
    pages: PageLayout,
    max_context: int,
    device: torch.device,
    *,
    kernels: str = KERNELS,
    launcher: Launcher | None = None,
    runs_ahead: bool = True,
) -> CudaRunner:
    """Of weights that are on the device already, in the form that `numerics` multiplies. `kernels`: whose table;
    `launcher` None: graphs where the device has them; `runs_ahead`: whether steps may be launched before the last
    one's tokens are known."""
    rows = max(config.max_batched_tokens, config.max_num_seqs)
    table = operations(kernels)
    with torch.inference_mode():
        policy = NUMERICS[numerics](table, rows, max(shape.product_widths), device)
        decoder = Decoder(weights, shape, policy, table, pages, max_context, rows, device)
    room = Room(rows, config.max_num_seqs, -(-max_context // pages.size))
    launcher = launcher or launcher_for(device)
    named = identity(numerics, device)
    return CudaRunner(decoder, table, launcher, named, pages.size, room, device, runs_ahead=runs_ahead)


def device_memory(config: EngineConfig, shape: ModelShape) -> Memory | None:
    """Where pages are to live, and what is to be had there beside this backend's own; None where that is the host."""
    device = _device(config)
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return Memory(max(0, free - own_bytes(config, shape)), total)


def own_bytes(config: EngineConfig, shape: ModelShape) -> int:
    """What a device needs besides what every backend does (engine/sizing.py):

    workspace of attention   256 MiB
    history                  max_num_seqs x vocab x 4, how often each request has each token
    graphs                   256 MiB for what the driver keeps of them
    """
    return 4 * MOST_WORKSPACE + 4 * config.max_num_seqs * shape.vocab_size + _GRAPHS


def identity(numerics: str, device: torch.device) -> dict[str, str]:
    """What may change the bits of a token, besides the weights."""
    on_cuda = device.type == "cuda"
    return {
        "backend": "cuda",
        "numerics": numerics,
        "kernels": json.dumps(table_names(KERNELS), sort_keys=True),
        "device": torch.cuda.get_device_name(device) if on_cuda else "interpreter",
        "torch": torch.__version__,
        "triton": version("triton"),
    }


def _no_device(config: EngineConfig) -> str | None:
    if _device(config).type == "cpu":
        from kernels.gpu.arithmetic import interpreted

        # Interpreted it is thousands of times slower, so somebody has to have asked for this backend by name.
        if interpreted() and config.backend == "cuda":
            return None
        return "device 'cpu' was asked for" if config.device == "cpu" else "no CUDA device is to be had"
    found = torch.cuda.get_device_capability()
    return None if found >= _OLDEST else f"its device is of compute capability {found}, and {_OLDEST} is the oldest"


def _device(config: EngineConfig) -> torch.device:
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
