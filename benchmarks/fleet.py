"""What the fleet costs: tokens per second through gateway, queue, worker and journal, against the engine alone.

    python -m benchmarks.fleet [--at 1 32] [--rounds 5] [--threads 2]

`headrace up` with one worker, our own client, one connection for each request; beside it `generate()` in a process of
its own, with the worker's settings and the same prompts, in turns. Clients ask in two ways: waiting for the whole
result, and following the stream. Words of one token each make prompts of the same length as text and as ids.

Twice: with as many engine threads as a fleet takes here by itself, which leaves a core to gateway, Redis, the worker's
parent and the clients (they all run on this machine), and with `--threads`, where everybody shares all cores.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from benchmarks import results
from benchmarks.arguments import common, names
from benchmarks.figures import Figure, share
from benchmarks.peers.headrace import NATURAL_ENDS
from benchmarks.peers.peer import started
from benchmarks.peers.process import PeerError, RunnerProcess
from benchmarks.results import model_path, say
from benchmarks.table import figures_table
from benchmarks.workloads import Ask
from engine.loaders import describe
from headrace import Client, settings
from headrace.contract.events import Completed
from tests.e2e.fleet import Fleet, running
from workers.inference.translate import engine_config

PROMPT: Final = 128
NEW_TOKENS: Final = 64
BARS: Final = {1: "≥ 90 %", 32: "≥ 95 %"}
_RUN_S: Final = 600.0
_WORD_STARTS: Final = "Ġ▁"  # how byte-level and SentencePiece vocabularies write a space


@dataclass(frozen=True, slots=True)
class Prompt:
    """The same tokens twice."""

    text: str
    ids: tuple[int, ...]


class Words:
    """Makes prompts of exactly so many tokens out of words that are one token each."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._words = sorted(
            token[1:]
            for token in tokenizer.get_vocab()
            if token[:1] in _WORD_STARTS and token[1:].isascii() and token[1:].isalpha() and token[1:].islower()
        )

    def prompt(self, seed: str, length: int) -> Prompt:
        source = random.Random(seed)
        while True:
            text = "".join(f" {source.choice(self._words)}" for _ in range(length))
            ids = self._tokenizer.encode(text).ids
            if len(ids) == length:
                return Prompt(text, tuple(ids))


def waiting(client: Client, model: str, prompt: Prompt) -> int:
    """Tokens of one job, asked for in one call."""
    job = client.submit(model=model, prompt=prompt.text, max_tokens=NEW_TOKENS, temperature=0, wait=60)
    return job.wait(_RUN_S).usage.completion_tokens


def streaming(client: Client, model: str, prompt: Prompt) -> int:
    """Tokens of one job, followed to its last event."""
    job = client.submit(model=model, prompt=prompt.text, max_tokens=NEW_TOKENS, temperature=0)
    last = list(job.stream())[-1]
    if not isinstance(last, Completed):
        raise PeerError(f"{job.id} ended as {last}")
    return last.usage.completion_tokens


WAYS: Final[dict[str, Callable[[Client, str, Prompt], int]]] = {"waiting": waiting, "streaming": streaming}


@dataclass(frozen=True, slots=True)
class Pair:
    """Tokens per second of one round."""

    fleet: float
    engine: float


class Contest:
    """A fleet and the engine alone, measured in turns with the same prompts."""

    def __init__(self, fleet: Fleet, engine: RunnerProcess, words: Words) -> None:
        self._fleet = fleet
        self._engine = engine
        self._words = words

    def rounds(self, way: str, count: int, rounds: int) -> Iterator[Pair]:
        """The first round warms up and is not given out. Raises PeerError when both do not give the same lengths."""
        for number in range(-1, rounds):
            prompts = [self._words.prompt(f"{way}/{count}/{number}/{index}", PROMPT) for index in range(count)]
            if number % 2:
                tokens, through = self._through_fleet(way, prompts)
            asks = tuple(Ask(prompt.ids, NEW_TOKENS) for prompt in prompts)
            alone = self._engine.run(asks, _RUN_S, all_of_them=False)
            if not number % 2:
                tokens, through = self._through_fleet(way, prompts)
            if tokens != alone.output_tokens:
                raise PeerError(f"the fleet gave {tokens} tokens and the engine {alone.output_tokens}")
            if number >= 0:
                yield Pair(through, alone.tokens_per_second)

    def _through_fleet(self, way: str, prompts: Sequence[Prompt]) -> tuple[int, float]:
        with Client(self._fleet.url) as client, ThreadPoolExecutor(len(prompts)) as pool:
            client.models()  # connected, as a client that is used more than once is
            began = time.perf_counter()
            tokens = sum(pool.map(lambda prompt: WAYS[way](client, self._fleet.model, prompt), prompts))
            return tokens, tokens / (time.perf_counter() - began)


@contextmanager
def contest(model: Path, threads: int) -> Iterator[Contest]:
    own = settings.load().engine.model_copy(update={"threads": threads})
    config = asdict(engine_config(str(model), own))
    options = {name: value for name, value in config.items() if name not in ("model", "threads")}
    options["cache_dir"] = str(config["cache_dir"])
    peer = replace(NATURAL_ENDS, options={**options, **NATURAL_ENDS.options})
    environ = {"HEADRACE_ENGINE__THREADS": str(threads)}
    words = Words(Tokenizer.from_str(describe(model).tokenizer_json))
    with (
        tempfile.TemporaryDirectory() as folder,
        started(peer, Path(sys.executable), model, threads) as engine,
        running(Path(folder), model=f"file:{model}", environ=environ) as fleet,
    ):
        yield Contest(fleet, engine, words)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = common("benchmarks.fleet", __doc__, rounds=5, output=results.FOLDER / "fleet.json")
    parser.add_argument("--at", type=int, nargs="+", default=[1, 32], help="how many requests at once")
    parser.add_argument("--ways", type=names(WAYS), default=list(WAYS), help=f"how clients ask: {', '.join(WAYS)}")
    given = parser.parse_args(arguments)
    model = model_path(given.model)
    by_itself = engine_config(str(model), settings.load().engine).threads
    figures: list[Figure] = []
    for threads in sorted({by_itself or given.threads, given.threads}):
        with contest(model, threads) as both:
            for count in given.at:
                for way in given.ways:
                    pairs = list(both.rounds(way, count, given.rounds))
                    figures.append(_told(threads, count, way, pairs))
    flags = {"threads": given.threads, "rounds": given.rounds}
    result = results.write_figures(given.output, model, flags, figures)
    print(figures_table(result))
    return 0


def _told(threads: int, count: int, way: str, pairs: Sequence[Pair]) -> Figure:
    for pair in pairs:
        say(f"threads={threads} N={count} {way:10} fleet {pair.fleet:8.1f} engine {pair.engine:8.1f} tok/s")
    name = f"{threads} engine thread{'s'[: threads > 1]}, N={count}, clients {way}: fleet over engine"
    return share(name, [pair.fleet / pair.engine for pair in pairs], BARS.get(count, ""))


if __name__ == "__main__":
    sys.exit(main())
