"""transformers: `generate()` on padded batches, and its own continuous batching; on the weights as dequantised."""

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

from benchmarks.peers.checkpoint import checkpoint
from benchmarks.peers.environments import Environment, pip
from benchmarks.peers.peer import Peer
from benchmarks.peers.serving import Options, RunnerAsk, serve

ENVIRONMENT = Environment(
    "transformers",
    # torch first and exactly: any open range takes several GB of CUDA packages.
    (pip("torch==2.13.0"), pip("torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0")),
)
STATIC: Final = "static"
# A padded batch runs as long as its longest request, so more rows than this waste more than they share.
_LARGEST_BATCH: Final = 32
_CACHE: Final = {"num_blocks": 256, "max_batch_tokens": 512}  # blocks of 256 tokens


def _peer(name: str, title: str, dtype: str, batching: str) -> Peer:
    options = {"dtype": dtype, "batching": batching}
    return Peer(name, title, __name__, ENVIRONMENT, files=checkpoint, options=options)


FLOAT32 = _peer("transformers-fp32", "transformers, static batch, fp32", "float32", STATIC)
BFLOAT16 = _peer("transformers-bf16", "transformers, static batch, bf16", "bfloat16", STATIC)
CONTINUOUS = _peer("transformers-continuous", "transformers, continuous batching, bf16", "bfloat16", "continuous")


class Transformers:
    """The parts that both ways of batching share."""

    def __init__(self, options: Options) -> None:
        self._torch = import_module("torch")
        self._transformers = import_module("transformers")
        self._torch.set_num_threads(options["threads"])
        dtype = getattr(self._torch, options["dtype"])
        self._model = self._transformers.AutoModelForCausalLM.from_pretrained(options["model"], dtype=dtype)
        self._model.eval()
        self._flags = {name: value for name, value in options.items() if name != "model"}

    def about(self) -> dict[str, Any]:
        return {"flags": self._flags, "torch": version("torch"), "transformers": version("transformers")}


class Static(Transformers):
    """Padded on the left, in batches of neighbours of similar output length."""

    def prepare(self, asks: Sequence[RunnerAsk]) -> Any:
        order = sorted(range(len(asks)), key=lambda index: asks[index][1])
        groups = [order[start : start + _LARGEST_BATCH] for start in range(0, len(order), _LARGEST_BATCH)]
        return len(asks), [(group, *self._padded([asks[index] for index in group])) for group in groups]

    def run(self, prepared: Any) -> list[int]:
        count, batches = prepared
        tokens = [0] * count
        for group, inputs, wanted in batches:
            longest = max(wanted)
            with self._torch.inference_mode():
                shown = self._model.generate(
                    **inputs, max_new_tokens=longest, do_sample=False, eos_token_id=None, pad_token_id=0
                )
            made = shown.shape[1] - inputs["input_ids"].shape[1]
            for index, asked in zip(group, wanted, strict=True):
                tokens[index] = min(asked, made)
        return tokens

    def _padded(self, asks: Sequence[RunnerAsk]) -> tuple[dict[str, Any], list[int]]:
        width = max(len(prompt) for prompt, _ in asks)
        ids = [[0] * (width - len(prompt)) + list(prompt) for prompt, _ in asks]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in asks]
        inputs = {"input_ids": self._torch.tensor(ids), "attention_mask": self._torch.tensor(mask)}
        return inputs, [new_tokens for _, new_tokens in asks]


class Continuous(Transformers):
    """Its paged cache and scheduler, kept running between runs."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        config = self._transformers.GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
        # Without a size it takes nine tenths of the machine's memory.
        cache = self._transformers.ContinuousBatchingConfig(**_CACHE)
        self._manager = self._model.init_continuous_batching(generation_config=config, continuous_batching_config=cache)
        self._flags.update(_CACHE, attention=self._model.config._attn_implementation)
        self._manager.start()

    def prepare(self, asks: Sequence[RunnerAsk]) -> Any:
        return [(list(prompt), new_tokens) for prompt, new_tokens in asks]

    def run(self, prepared: Any) -> list[int]:
        names = [self._manager.add_request(prompt, max_new_tokens=new_tokens) for prompt, new_tokens in prepared]
        ended: dict[str, int] = {}
        while len(ended) < len(names):
            result = self._manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                ended[result.request_id] = len(result.generated_tokens)
            elif result is None and not self._manager.is_running():
                raise RuntimeError("its continuous batching ended by itself")
        return [ended[name] for name in names]


def load(options: Options) -> Static | Continuous:
    return Static(options) if options["batching"] == STATIC else Continuous(options)


if __name__ == "__main__":
    serve(load)
