"""A fleet whose processes die: one Redis, workers and gateways that are brought back when they fall. Judges nothing.

Plays the supervisor: whoever has ended is started again, and if the supervisor is said to be there, a dead worker's
jobs go back at once; else its host counts as gone, and its leases run out.
"""

import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from headrace.contract.errors import StoreUnavailable
from headrace.contract.ids import worker_id
from headrace.queue.base import ReapRequest
from headrace.queue.redis import RedisQueue
from headrace.settings import Settings, load
from headrace.store.connection import connect
from headrace.store.payloads import open_payloads
from tests.chaos.doom import Sentence, has_struck
from tests.chaos.nursery import Nursery
from tests.chaos.process import engine_sentence
from tests.chaos.reading import Reader
from tests.redis_server import RedisServer

TAG = "chaos"
START_S = 180.0
LEASE_MS = 600
MEMORY = Path("/dev/shm")


@dataclass
class Place:
    """One process that is to be there, whichever pid it has by now. `ended` counts how often it fell."""

    name: str
    role: str
    folder: Path
    variables: Mapping[str, str]
    url: str = ""
    pid: int = 0
    ended: int = 0

    @property
    def sentence(self) -> Path:
        return self.folder / self.name

    @property
    def engine_sentence(self) -> Path:
        return engine_sentence(self.sentence)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def worker(self) -> str:
        return worker_id(TAG, self.pid)

    def process(self) -> psutil.Process:
        return psutil.Process(self.pid)

    def engine(self) -> psutil.Process | None:
        """The worker's engine: the child that has loaded most."""
        with suppress(psutil.Error):
            return max(self.process().children(), key=lambda child: int(child.memory_info().rss), default=None)
        return None


def variables(server: RedisServer, folder: Path, model: str, lease_ms: int, **more: str) -> dict[str, str]:
    """The settings of a fleet with short leases, for the environment of its processes."""
    return {
        "HEADRACE_REDIS__URL": server.url,
        "HEADRACE_PATHS__DATA_DIR": str(folder / "data"),
        "HEADRACE_QUEUE__LEASE_MS": str(lease_ms),
        "HEADRACE_QUEUE__RENEW_MS": str(lease_ms // 4),
        "HEADRACE_QUEUE__REAP_MS": "100",
        "HEADRACE_QUEUE__BEAT_MS": "100",
        "HEADRACE_GATEWAY__PING_S": "1",
        "HEADRACE_WORKER__MODEL": model,
        "HEADRACE_WORKER__TAG": TAG,
        "HEADRACE_WORKER__EVENTS": "false",
        "HEADRACE_ENGINE__THREADS": "1",
        "HEADRACE_BLOBS__THRESHOLD_BYTES": "1000",
        "HEADRACE_LOG__FORMAT": "json",
        **more,
    }


@dataclass
class Ground:
    """Use `running`. `supervised` may be set at any time."""

    folder: Path
    server: RedisServer
    nursery: Nursery
    settings: Settings
    workers: tuple[Place, ...]
    gateways: tuple[Place, ...]
    supervised: bool = True
    _serial: int = 0
    _unreaped: list[ReapRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = connect(self.server.url)
        payloads = open_payloads(self.settings)
        self.queue = RedisQueue(self.client, self.settings.queue.timing(), payloads=payloads)
        self.reader = Reader(self.client, payloads)

    @property
    def places(self) -> tuple[Place, ...]:
        return (*self.workers, *self.gateways)

    @property
    def living(self) -> tuple[str, ...]:
        """Ids of the workers that are there now."""
        return tuple(place.worker for place in self.workers)

    def urls(self) -> Sequence[str]:
        return [place.url for place in self.gateways]

    def start(self, place: Place) -> None:
        place.pid = self.nursery.bear(place.role, place.sentence, place.variables, place.log)

    def look(self) -> None:
        """Notice who has ended, and start them again."""
        for place in self.places:
            code = self.nursery.exit_code(place.pid)
            if code is None:
                continue
            place.ended += 1
            if place.role == "workers" and self.supervised:
                self._unreaped.append(ReapRequest(worker=place.worker, died=code != 0))
            self.start(place)
        self._reap()

    def sentence(self, files: Iterable[Path], point: str, nth: int) -> int:
        """Whoever reads one of these files dies at the `nth` such moment of theirs. Answers with the serial number."""
        self._serial += 1
        for file in files:
            Sentence(self._serial, point, nth).write(file)
        return self._serial

    def struck(self, files: Iterable[Path], serial: int) -> bool:
        """Whether one of the readers of these files has died of this sentence."""
        return any(has_struck(file, serial) for file in files)

    def acquit(self, files: Iterable[Path]) -> None:
        """Whoever reads these is not to die any more."""
        for file in files:
            file.unlink(missing_ok=True)

    def held(self, place: Place) -> int:
        """Jobs that the store thinks this worker holds."""
        return len(self.jobs_of(place))

    def jobs_of(self, place: Place) -> tuple[str, ...]:
        """Their ids."""
        held: Any = self.client.smembers(f"hr:held:{place.worker}")
        return tuple(job_id.decode() for job_id in held)

    def whole(self) -> bool:
        """Whether every worker is ready and idle, and every gateway answers."""
        self.look()
        return self.reader.idle(self.living) and all(_answers(place.url) for place in self.gateways)

    def wait_until_whole(self, limit_s: float = START_S) -> None:
        give_up_at = time.monotonic() + limit_s
        while not self.whole():
            if time.monotonic() > give_up_at:
                raise AssertionError(f"The fleet is not whole again within {limit_s:g} s: {self.last_words()}")
            time.sleep(0.01)

    def last_words(self) -> dict[str, str]:
        return {place.name: place.log.read_text()[-600:] if place.log.exists() else "" for place in self.places}

    def _reap(self) -> None:
        while self._unreaped:
            try:
                self.queue.reap(self._unreaped[0])
            except StoreUnavailable:
                return
            self._unreaped.pop(0)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/live", timeout=2.0) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(
    model: str, *, workers: int = 2, gateways: int = 2, lease_ms: int = LEASE_MS, **more: str
) -> Iterator[Ground]:
    """A whole fleet; all of it is gone when the block ends."""
    with _redis() as server:
        base = variables(server, server.folder, model, lease_ms, **more)
        nursery = Nursery(server.folder / "nursery.log")
        try:
            ground = Ground(
                folder=server.folder,
                server=server,
                nursery=nursery,
                settings=load(environ=base, dotenv=Path("/nonexistent")),
                workers=tuple(Place(f"worker-{i}", "workers", server.folder, base) for i in range(workers)),
                gateways=tuple(_gateway(i, server.folder, base) for i in range(gateways)),
            )
            for place in ground.places:
                ground.start(place)
            ground.wait_until_whole()
            yield ground
        finally:
            nursery.close()
            # The engines go with their parents; Redis is stopped when they are.
            ground.client.close()


@contextmanager
def _redis() -> Iterator[RedisServer]:
    """In memory where there is a place for files: what its disk would survive is tried elsewhere, and a machine whose
    disk is busy would measure leases by it."""
    with tempfile.TemporaryDirectory(prefix="hr-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        server = RedisServer(Path(folder), fsync="always")
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _gateway(number: int, folder: Path, base: Mapping[str, str]) -> Place:
    port = free_port()
    more = {"HEADRACE_GATEWAY__PORT": str(port)}
    return Place(f"gateway-{number}", "gateway", folder, {**base, **more}, url=f"http://127.0.0.1:{port}")
