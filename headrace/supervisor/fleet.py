"""The whole stack on one machine: Redis, gateway and workers as `headrace up` runs them. Knows settings and order."""

import importlib.util
import secrets
import sys
import time
from collections.abc import Callable

import redis

from headrace.autoscaler.decision import Limits
from headrace.autoscaler.loop import Autoscaler, SignalThread
from headrace.client import Client, Patience
from headrace.contract.errors import HeadraceError, SetupError, StoreUnavailable
from headrace.contract.ids import worker_id
from headrace.queue.base import ReapRequest
from headrace.queue.redis import RedisQueue
from headrace.settings import as_variables
from headrace.store.beats import read_beats
from headrace.store.connection import check_server, connect
from headrace.supervisor.data_folder import DataFolder
from headrace.supervisor.local_scaler import LocalScaler
from headrace.supervisor.plan import Address, Plan
from headrace.supervisor.process import Process, Spec
from headrace.supervisor.redis_server import EmbeddedRedis
from headrace.supervisor.supervisor import Death, Supervisor

_DEATHS_BEFORE_READY = 3
_CANNOT_START = 3  # a worker's own word for what another try will not change
_DRAINED = (0, 75)  # a worker's own words for an end that it was asked for, in time or not
_LOOK_S = 0.1
_REAP_AGAIN_S = 0.5
_SPARE_S = 5.0
_SOURCE = "https://github.com/headrace/headrace"
_STALE_LOOKS = 5
_FEEDER = "feeder"
_TASKS = "tasks"
_TASKS_COMMAND = (
    sys.executable,
    *["-m", "celery", "-q", "-A", "workers.celery_app", "worker", "-Q", "documents,batches,maintenance"],
    *["-B", "-n", "tasks@%h", "--without-mingle", "--without-gossip", "-l", "INFO"],
)


class Fleet:
    """Owns everything between `start` and `stop`; call `look` often in between, all from one thread."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        need_servers()
        self._plan = plan
        self._say = say
        self._tag = secrets.token_hex(4)
        self._ready = False
        self._too_many: Death | None = None
        self._unreaped: list[ReapRequest] = []
        self._reap_at = 0.0
        self._registering: list[Process] = []
        self._folder = DataFolder(plan.settings.paths.data_dir)
        self._redis = None if plan.settings.redis.url else EmbeddedRedis(self._folder.path)
        redis_url = self._redis.url if self._redis else plan.settings.redis.url
        host, port = plan.settings.gateway.host, plan.settings.gateway.port
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        models = tuple(model.id for model in plan.models)
        self.address = Address(f"http://{shown}:{port}", redis_url, models[0], models)
        self._queue = RedisQueue(self._connect(), plan.settings.queue.timing())
        self._supervisor = Supervisor(
            self._folder.logs,
            on_death=self._mourn,
            on_leave=self._see_off,
            echo=plan.echo,
            inherited=[self._folder.lock_fd],
        )
        self._lanes = plan.lanes()
        self._scaler = LocalScaler(self._supervisor, plan.places(), self._worker_spec, self._tag)
        scale = plan.settings.scale
        self._signals = SignalThread(self._connect, tuple(self._lanes), scale.look_s, say)
        limits = Limits(
            plan.least, plan.most, scale.idle_s, scale.target_s, scale.look_s, stale_s=_STALE_LOOKS * scale.look_s
        )
        self._autoscaler = Autoscaler(self._scaler, self._signals, limits, say)

    def start(self) -> None:
        """Start everything, Redis first. Raises SetupError when that one cannot serve."""
        if self._redis:
            self._redis.wait_ready(self._supervisor.start(self._redis.spec))
        check_server(self._queue.client)
        self._supervisor.start(Spec("gateway", (sys.executable, "-m", "gateway"), self._variables()))
        for lane in self._lanes:
            self._scaler.start(lane, self._plan.least)
        if not self._plan.least:
            self._register()
        if self._plan.scales:
            self._signals.start()

    def wait_ready(self, interrupted: Callable[[], bool]) -> bool:
        """Until the gateway answers and shows every model; False when interrupted first.

        Raises SetupError when a process dies again and again, or all takes too long.
        """
        give_up_at = time.monotonic() + self._plan.settings.worker.start_timeout_s
        with Client(self.address.url, patience=Patience(silence_s=0)) as client:
            while not self._serves(client):
                if interrupted():
                    return False
                if self._too_many:
                    raise SetupError(
                        f"{self._too_many.explain().rstrip('.')}.", next_step=f"Its log: {self._too_many.log}"
                    )
                if time.monotonic() > give_up_at:
                    raise SetupError(
                        f"The fleet was not ready within {self._plan.settings.worker.start_timeout_s:.0f} s.",
                        next_step=f"Look at the logs in {self._folder.logs}.",
                    )
                self.look()
                self.pause(_LOOK_S)
        self._ready = True
        # Not before: nobody waits for it, and a start has the machine's cores to itself.
        self._supervisor.keep(Spec(_TASKS, _TASKS_COMMAND, self._variables()))
        if self._plan.settings.ledger.url:
            self._supervisor.keep(Spec(_FEEDER, (sys.executable, "-m", "workers", "feeder"), self._variables()))
        return True

    def look(self) -> None:
        """Restart what died, put back what a dead worker held, and have as many workers as there is work for."""
        now = time.monotonic()
        self._supervisor.look(now)
        if self._plan.scales:
            self._autoscaler.look(tuple(self._lanes), now)
        if self._unreaped and now >= self._reap_at:
            self._reap()
            self._reap_at = now + _REAP_AGAIN_S

    def pause(self, seconds: float) -> None:
        """Between two looks; shorter when work comes."""
        self._signals.news.wait(seconds)
        self._signals.news.clear()

    def adopt(self, pid: int) -> None:
        """A process that is to be gone when this one is."""
        self._supervisor.adopt(pid)

    def dismiss(self, pid: int) -> None:
        self._supervisor.dismiss(pid)

    def stop(self, hurry: Callable[[], bool]) -> None:
        """Tasks end and workers drain while gateway and Redis still serve; then those two. Leaves nothing behind."""
        try:
            for process in self._registering:
                process.clear()
            self._supervisor.stop([[_FEEDER, _TASKS, *self._worker_names()], ["gateway"], ["redis"]], hurry)
        finally:
            self._signals.stop()
            self._queue.client.close()
            self._folder.close()

    # -- what runs

    def _connect(self) -> redis.Redis:
        settings = self._plan.settings.redis
        return connect(
            self.address.redis_url,
            connect_timeout_s=settings.connect_timeout_s,
            socket_timeout_s=settings.socket_timeout_s,
        )

    def _worker_names(self) -> list[str]:
        return [name for names in self._plan.places().values() for name in names]

    def _worker_spec(self, lane: str, name: str) -> Spec:
        grace_s = self._plan.settings.worker.drain_s + _SPARE_S
        return Spec(name, (sys.executable, "-m", "workers"), self._worker_variables(lane), grace_s)

    def _variables(self) -> dict[str, str]:
        """The settings as every child is to see them."""
        return as_variables(self._plan.settings) | {"HEADRACE_REDIS__URL": self.address.redis_url}

    def _worker_variables(self, lane: str) -> dict[str, str]:
        return self._variables() | {
            "HEADRACE_WORKER__MODEL": self._lanes[lane].source,
            "HEADRACE_WORKER__TAG": self._tag,
            "HEADRACE_ENGINE__THREADS": str(self._plan.threads()),
        }

    def _register(self) -> None:
        """A lane that starts with no worker needs its card from the file, or nobody could submit what wakes it."""
        for number, lane in enumerate(self._lanes, 1):
            name = f"register-{number}"
            spec = Spec(name, (sys.executable, "-m", "workers", "register"), self._worker_variables(lane))
            process = Process(spec, self._folder.logs / f"{name}.log", echo=self._plan.echo)
            self._supervisor.adopt(process.pid)
            self._registering.append(process)

    # -- what is to be seen

    def _serves(self, client: Client) -> bool:
        """A card outlives its fleet in the data folder, so a worker of our own must be there too for each model; where
        there need not be any, its card must have been written anew."""
        if not self._registered():
            return False
        try:
            shown = set(client.models())
            ready = {
                beat.lane
                for beat in read_beats(self._queue.client)
                if beat.worker.endswith(f"_{self._tag}") and beat.state == "ready"
            }
        except HeadraceError:
            return False
        return shown.issuperset(self.address.models) and (not self._plan.least or ready.issuperset(self._lanes))

    def _registered(self) -> bool:
        """Whether all cards are written. Raises SetupError when one cannot be."""
        for process in list(self._registering):
            if process.exit_code is None:
                return False
            if process.exit_code != 0:
                raise SetupError(f"{process.last_words().rstrip('.')}.", next_step=f"Its log: {process.log}")
            process.clear()
            self._supervisor.dismiss(process.pid)
            self._registering.remove(process)
        return True

    def _mourn(self, death: Death) -> None:
        if death.pid is not None and death.spec.name in self._worker_names():
            self._reap_soon(death.pid, died=death.exit_code not in _DRAINED)
        if not self._ready and (death.exit_code == _CANNOT_START or death.deaths >= _DEATHS_BEFORE_READY):
            self._too_many = death
        else:
            self._say(f"{death.explain()}; starting it again in {death.delay_s:.1f} s")

    def _see_off(self, name: str, pid: int, exit_code: int) -> None:
        """A worker that could not drain in order may still hold leases; that it was stopped is nobody's fault."""
        if exit_code != 0:
            self._reap_soon(pid, died=False)

    def _reap_soon(self, pid: int, *, died: bool) -> None:
        self._unreaped.append(ReapRequest(worker=worker_id(self._tag, pid), died=died))
        self._reap_at = 0.0

    def _reap(self) -> None:
        """Its jobs go back now and not when their leases run out. Kept for later while Redis is away."""
        while self._unreaped:
            try:
                reply = self._queue.reap(self._unreaped[0])
            except StoreUnavailable:
                return
            worker = self._unreaped.pop(0).worker
            if reply.requeued or reply.dead:
                self._say(f"{worker}: {len(reply.requeued)} jobs go on elsewhere, {len(reply.dead)} are dead")


def need_servers() -> None:
    """Raises SetupError unless all that a fleet runs is installed."""
    for module in ("gateway", "workers"):
        need_server(module)


def need_server(module: str) -> None:
    """Raises SetupError where only the wheel, client and command line, is installed."""
    parts = {"gateway": ("gateway", "fastapi", "uvicorn"), "workers": ("workers", "engine", "celery", "torch")}[module]
    missing = [part for part in parts if importlib.util.find_spec(part) is None]
    if missing:
        raise SetupError(
            f"The {module.removesuffix('s')} is not installed here (missing: {', '.join(missing)}).",
            next_step=f"Servers are not in the wheel. Get them: git clone {_SOURCE} && cd headrace && make up"
            " (or, with Docker, there: docker compose up).",
        )
