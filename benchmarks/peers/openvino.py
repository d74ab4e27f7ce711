"""OpenVINO GenAI's continuous batching: on the same GGUF, and on its own int8 form of the same weights."""

import shutil
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.checkpoint import checkpoint
from benchmarks.peers.environments import FOLDER, Environment, made, pip, run_step
from benchmarks.peers.peer import Peer, Say
from benchmarks.peers.serving import Options, RunnerAsk, serve

RUNTIME = Environment("openvino", (pip("openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0"),))
EXPORT = Environment(
    "openvino-export",
    (
        # torch first and exactly: any open range takes several GB of CUDA packages.
        pip("torch==2.13.0"),
        pip("torch==2.13.0", "optimum-intel[openvino]==2.2.0", "nncf==3.4.0"),
        # Built for another torch than this one; a language model needs none of it.
        ("{python}", "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"),
    ),
)
INT8_FOLDER = FOLDER / "files" / "openvino-int8"


def int8_files(gguf: Path, say: Say) -> Path:
    """Weights in 8 bits by its own exporter, from the weights as dequantised."""
    if not INT8_FOLDER.exists():
        source = checkpoint(gguf, say)
        python = made(EXPORT, say)
        say("exporting to OpenVINO's int8")
        unfinished = INT8_FOLDER.with_suffix(".part")
        task = ("--task", "text-generation-with-past", "--weight-format", "int8")
        exporter = str(python.parent / "optimum-cli")
        run_step((exporter, "export", "openvino", "--model", str(source), *task, str(unfinished)), FOLDER)
        unfinished.rename(INT8_FOLDER)
        shutil.rmtree(EXPORT.folder)  # 1.6 GB that nothing else needs
    return INT8_FOLDER


GGUF = Peer("openvino", "OpenVINO GenAI, same GGUF", __name__, RUNTIME)
INT8 = Peer("openvino-int8", "OpenVINO GenAI, its int8", __name__, RUNTIME, files=int8_files)


class OpenVINO:
    """Its own defaults but for the threads and a cache that holds every workload."""

    def __init__(self, options: Options) -> None:
        self._genai = import_module("openvino_genai")
        self._openvino = import_module("openvino")
        self._numpy = import_module("numpy")
        scheduler = self._genai.SchedulerConfig()
        scheduler.cache_size = 1  # GB
        scheduler.max_num_seqs = 64
        scheduler.enable_prefix_caching = True
        properties = {"INFERENCE_NUM_THREADS": options["threads"]}
        self._pipeline = self._genai.ContinuousBatchingPipeline(options["model"], scheduler, "CPU", properties)
        self._flags = {
            **properties,
            "cache_size": scheduler.cache_size,
            "max_num_seqs": scheduler.max_num_seqs,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "dynamic_split_fuse": scheduler.dynamic_split_fuse,
            "enable_prefix_caching": scheduler.enable_prefix_caching,
        }

    def about(self) -> dict[str, Any]:
        return {"flags": self._flags, "openvino": version("openvino"), "openvino-genai": version("openvino-genai")}

    def prepare(self, asks: Sequence[RunnerAsk]) -> Any:
        tensors = [self._openvino.Tensor(self._numpy.array([prompt], self._numpy.int64)) for prompt, _ in asks]
        return tensors, [self._config(new_tokens) for _, new_tokens in asks]

    def run(self, prepared: Any) -> list[int]:
        return [len(result.m_generation_ids[0]) for result in self._pipeline.generate(*prepared)]

    def _config(self, new_tokens: int) -> Any:
        config = self._genai.GenerationConfig()
        config.max_new_tokens = new_tokens
        config.ignore_eos = True
        config.do_sample = False
        return config


if __name__ == "__main__":
    serve(OpenVINO)
