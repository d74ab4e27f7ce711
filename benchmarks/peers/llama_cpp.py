"""llama.cpp on the same GGUF and on its Q8_0, built from source for this processor; batched as its server does.

Every step decodes all running sequences and fills the rest of the batch with prompts. A prefix that all prompts share
is computed once and copied, which its server would not do for requests that arrive together.
"""

import ctypes
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.environments import FOLDER, Environment, made, pip, run_step
from benchmarks.peers.peer import Peer, Say
from benchmarks.peers.serving import Options, RunnerAsk, serve

VERSION: Final = "0.3.36"
_SOURCES: Final = f"llama_cpp_python-{VERSION}"
_BUILD: Final = (
    *("-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DGGML_OPENMP=ON", "-DBUILD_SHARED_LIBS=ON"),
    *("-DLLAMA_BUILD_COMMON=ON", "-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_TESTS=OFF"),
    *("-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF"),
)
ENVIRONMENT = Environment(
    "llama.cpp",
    (
        pip("numpy", "diskcache", "jinja2", "typing-extensions", "cmake", "ninja"),
        (
            *("{python}", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"),
            *("--dest", "{folder}", f"llama-cpp-python=={VERSION}"),
        ),
        ("tar", "xzf", f"{{folder}}/{_SOURCES}.tar.gz"),
        ("{folder}/bin/cmake", "-S", f"{_SOURCES}/vendor/llama.cpp", "-B", "build", *_BUILD),
        ("{folder}/bin/ninja", "-C", "build", "-j1", "llama-batched-bench", "llama-quantize"),
    ),
)
LIBRARIES: Final = ENVIRONMENT.folder / "build" / "bin"
_ISA: Final = ("AVX512", "AVX512_VNNI", "AVX512_BF16", "AVX_VNNI", "AMX_INT8", "LLAMAFILE", "REPACK", "OPENMP")


def q8_files(gguf: Path, say: Say) -> Path:
    """The same weights in the format nearest to our own numerics; its kernels for that are the faster ones."""
    file = FOLDER / "files" / f"{gguf.stem}-q8_0.gguf"
    if not file.exists():
        made(ENVIRONMENT, say)
        say("converting to Q8_0")
        unfinished = file.with_suffix(".part")
        file.parent.mkdir(parents=True, exist_ok=True)
        quantize = str(LIBRARIES / "llama-quantize")
        run_step((quantize, "--allow-requantize", str(gguf), str(unfinished), "Q8_0", "2"), FOLDER)
        unfinished.rename(file)
    return file


_ENVIRON: Final = {"PYTHONPATH": str(ENVIRONMENT.folder / _SOURCES), "LLAMA_CPP_LIB_PATH": str(LIBRARIES)}
PEER = Peer("llama.cpp", "llama.cpp, same GGUF, batch API", __name__, ENVIRONMENT, environ=_ENVIRON)
Q8 = Peer("llama.cpp-q8_0", "llama.cpp, its Q8_0, batch API", __name__, ENVIRONMENT, q8_files, environ=_ENVIRON)

_BATCH: Final = 2_048  # tokens in one call, its own default; it computes 512 of them at a time
_ROOM: Final = 256  # a sequence's room is a multiple of this


class Running:
    """One request on its way: how much of the prompt is computed, and what came out."""

    def __init__(self, index: int, prompt: list[int], new_tokens: int) -> None:
        self.index = index
        self.prompt = prompt
        self.new_tokens = new_tokens
        self.computed = 0
        self.output: list[int] = []

    @property
    def next_tokens(self) -> list[int]:
        """What is to be computed before the next token is known."""
        return [self.output[-1]] if self.output else self.prompt[self.computed :]

    @property
    def done(self) -> bool:
        return len(self.output) == self.new_tokens


class LlamaCpp:
    def __init__(self, options: Options) -> None:
        self._api = import_module("llama_cpp.llama_cpp")
        self._numpy = import_module("numpy")
        self._threads = options["threads"]
        self._api.llama_backend_init()
        params = self._api.llama_model_default_params()
        self._model = self._api.llama_model_load_from_file(options["model"].encode(), params)
        if not self._model:
            raise SystemExit(f"llama.cpp cannot load {Path(options['model']).name}")
        self._vocab_size = self._api.llama_vocab_n_tokens(self._api.llama_model_get_vocab(self._model))
        self._batch = self._api.llama_batch_init(_BATCH, 0, 1)
        self._context: Any = None

    def about(self) -> dict[str, Any]:
        said = self._api.llama_print_system_info().decode()
        switches = dict(part.strip().split(" = ") for part in said.replace(":", "|").split("|") if " = " in part)
        isa = [name for name in _ISA if switches.get(name) == "1"]
        return {"llama.cpp": f"llama-cpp-python {VERSION}", "flags": {"threads": self._threads, "isa": isa}}

    def prepare(self, asks: Sequence[RunnerAsk]) -> Any:
        """A context with room for all requests at once, and their sequences."""
        longest = max(len(prompt) + new_tokens for prompt, new_tokens in asks)
        params = self._api.llama_context_default_params()
        params.n_ctx = len(asks) * -(-longest // _ROOM) * _ROOM
        params.n_seq_max = len(asks)
        params.n_batch = _BATCH
        params.n_threads = params.n_threads_batch = self._threads
        if self._context is not None:
            self._api.llama_free(self._context)
        self._context = self._api.llama_init_from_model(self._model, params)
        return [Running(index, prompt, new_tokens) for index, (prompt, new_tokens) in enumerate(asks)]

    def run(self, prepared: list[Running]) -> list[int]:
        self._compute_shared(prepared)
        while running := [sequence for sequence in prepared if not sequence.done]:
            self._step(running)
        return [len(sequence.output) for sequence in prepared]

    def _compute_shared(self, sequences: list[Running]) -> None:
        """The prefix that all prompts have in common, computed in the first sequence and copied to the others."""
        shared = _shared_length([sequence.prompt[:-1] for sequence in sequences])
        if shared == 0 or len(sequences) == 1:
            return
        for start in range(0, shared, _BATCH):
            self._clear()
            for position in range(start, min(start + _BATCH, shared)):
                self._put(sequences[0].prompt[position], position, 0, wanted=False)
            self._decode()
        memory = self._api.llama_get_memory(self._context)
        for sequence in sequences:
            sequence.computed = shared
            if sequence.index:
                self._api.llama_memory_seq_cp(memory, 0, sequence.index, -1, -1)

    def _step(self, running: list[Running]) -> None:
        self._clear()
        sampled: list[tuple[Running, int]] = []
        for sequence in sorted(running, key=lambda sequence: not sequence.output):  # those that decode first
            tokens = sequence.next_tokens[: _BATCH - self._batch.n_tokens]
            for token in tokens:
                last = bool(sequence.output) or sequence.computed == len(sequence.prompt) - 1
                self._put(token, sequence.computed, sequence.index, wanted=last)
                sequence.computed += 1
                if last:
                    sampled.append((sequence, self._batch.n_tokens - 1))
        self._decode()
        for sequence, row in sampled:
            sequence.output.append(self._greedy(row))

    def _clear(self) -> None:
        self._batch.n_tokens = 0

    def _put(self, token: int, position: int, sequence: int, *, wanted: bool) -> None:
        row = self._batch.n_tokens
        self._batch.token[row] = token
        self._batch.pos[row] = position
        self._batch.n_seq_id[row] = 1
        self._batch.seq_id[row][0] = sequence
        self._batch.logits[row] = wanted
        self._batch.n_tokens = row + 1

    def _decode(self) -> None:
        code = self._api.llama_decode(self._context, self._batch)
        if code != 0:
            raise SystemExit(f"llama_decode ended with {code}")

    def _greedy(self, row: int) -> int:
        logits = self._api.llama_get_logits_ith(self._context, row)
        address = ctypes.addressof(logits.contents)
        values = (ctypes.c_float * self._vocab_size).from_address(address)
        return int(self._numpy.frombuffer(values, dtype=self._numpy.float32).argmax())


def _shared_length(prompts: list[list[int]]) -> int:
    """How many first tokens all prompts have in common."""
    length = 0
    for column in zip(*prompts, strict=False):
        if len(set(column)) > 1:
            break
        length += 1
    return length


if __name__ == "__main__":
    serve(LlamaCpp)
