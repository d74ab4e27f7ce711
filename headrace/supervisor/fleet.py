"""The whole stack on one machine: Redis, gateway and workers as `headrace up` runs them. Knows settings and order."""

import importlib.util
import os
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from headrace.client import Client, Patience
from headrace.contract.errors import HeadraceError, SetupError, StoreUnavailable
from headrace.contract.ids import worker_id
from headrace.queue.base import ReapRequest
from headrace.queue.redis import RedisQueue
from headrace.settings import Settings, as_variables
from headrace.store.beats import read_beats
from headrace.store.connection import check_server, connect
from headrace.supervisor.data_folder import DataFolder
from headrace.supervisor.process import Spec
from headrace.supervisor.redis_server import EmbeddedRedis
from headrace.supervisor.supervisor import Death, Supervisor

_DEATHS_BEFORE_READY = 3
_CANNOT_START = 3  # a worker's own word for what another try will not change
_LOOK_S = 0.1
_REAP_AGAIN_S = 0.5
_SPARE_S = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `model_id` is what clients call the model that `settings.worker.model` names."""

    settings: Settings
    model_id: str
    workers: int = 1
    echo: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """Where a running fleet is reached."""

    url: str
    redis_url: str
    model: str


class Fleet:
    """Owns everything between `start` and `stop`; call `look` often in between, all from one thread."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        for module in ("gateway", "workers"):
            need_server(module)
        self._plan = plan
        self._say = say
        self._tag = secrets.token_hex(4)
        self._ready = False
        self._too_many: Death | None = None
        self._unreaped: list[str] = []
        self._reap_at = 0.0
        self._folder = DataFolder(plan.settings.paths.data_dir)
        self._redis = None if plan.settings.redis.url else EmbeddedRedis(self._folder.path)
        redis_url = self._redis.url if self._redis else plan.settings.redis.url
        host, port = plan.settings.gateway.host, plan.settings.gateway.port
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        self.address = Address(f"http://{shown}:{port}", redis_url, plan.model_id)
        self._queue = RedisQueue(
            connect(
                redis_url,
                connect_timeout_s=plan.settings.redis.connect_timeout_s,
                socket_timeout_s=plan.settings.redis.socket_timeout_s,
            ),
            plan.settings.queue.timing(),
        )
        self._supervisor = Supervisor(
            self._folder.logs, on_death=self._mourn, echo=plan.echo, inherited=[self._folder.lock_fd]
        )

    def start(self) -> None:
        """Start everything, Redis first. Raises SetupError when that one cannot serve."""
        if self._redis:
            self._redis.wait_ready(self._supervisor.start(self._redis.spec))
        check_server(self._queue.client)
        variables = {**self._variables(), "HEADRACE_WORKER__TAG": self._tag}
        grace_s = self._plan.settings.worker.drain_s + _SPARE_S
        self._supervisor.start(Spec("gateway", (sys.executable, "-m", "gateway"), variables))
        for name in self._worker_names():
            self._supervisor.start(Spec(name, (sys.executable, "-m", "workers"), variables, grace_s))

    def wait_ready(self, interrupted: Callable[[], bool]) -> bool:
        """Until the gateway answers and shows the model; False when interrupted first.

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
                time.sleep(_LOOK_S)
        self._ready = True
        return True

    def look(self) -> None:
        """Restart what died, and put back what a dead worker held."""
        now = time.monotonic()
        self._supervisor.look(now)
        if self._unreaped and now >= self._reap_at:
            self._reap()
            self._reap_at = now + _REAP_AGAIN_S

    def adopt(self, pid: int) -> None:
        """A process that is to be gone when this one is."""
        self._supervisor.adopt(pid)

    def dismiss(self, pid: int) -> None:
        self._supervisor.dismiss(pid)

    def stop(self, hurry: Callable[[], bool]) -> None:
        """Workers drain while gateway and Redis still serve; then those two. Leaves nothing behind."""
        try:
            self._supervisor.stop([self._worker_names(), ["gateway"], ["redis"]], hurry)
        finally:
            self._queue.client.close()
            self._folder.close()

    def _worker_names(self) -> list[str]:
        return [f"worker-{number}" for number in range(1, self._plan.workers + 1)]

    def _variables(self) -> dict[str, str]:
        """The settings as every child is to see them."""
        variables = as_variables(self._plan.settings) | {"HEADRACE_REDIS__URL": self.address.redis_url}
        if self._plan.settings.engine.threads is None:
            # A step waits for its slowest thread, so threads that share a core with anything else cost more than they
            # bring: workers divide the cores between them, less one for gateway, store and the workers' parents.
            variables["HEADRACE_ENGINE__THREADS"] = str(max(1, (_cores() - 1) // self._plan.workers))
        return variables

    def _serves(self, client: Client) -> bool:
        """A card outlives its fleet in the data folder, so one of our own workers must be there too."""
        try:
            return self._plan.model_id in client.models() and any(
                beat.worker.endswith(f"_{self._tag}") and beat.state == "ready"
                for beat in read_beats(self._queue.client)
            )
        except HeadraceError:
            return False

    def _mourn(self, death: Death) -> None:
        if death.spec.name in self._worker_names():
            self._unreaped.append(worker_id(self._tag, death.pid))
            self._reap_at = 0.0
        if not self._ready and (death.exit_code == _CANNOT_START or death.deaths >= _DEATHS_BEFORE_READY):
            self._too_many = death
        else:
            self._say(f"{death.explain()}; starting it again in {death.delay_s:.1f} s")

    def _reap(self) -> None:
        """Its jobs go back now and not when their leases run out. Kept for later while Redis is away."""
        while self._unreaped:
            try:
                reply = self._queue.reap(ReapRequest(worker=self._unreaped[0], died=True))
            except StoreUnavailable:
                return
            worker = self._unreaped.pop(0)
            if reply.requeued or reply.dead:
                self._say(f"{worker}: {len(reply.requeued)} jobs go on elsewhere, {len(reply.dead)} are dead")


def need_server(module: str) -> None:
    """Raises SetupError where only the wheel, client and command line, is installed."""
    parts = {"gateway": ("gateway", "fastapi", "uvicorn"), "workers": ("workers", "engine", "celery", "torch")}[module]
    missing = [part for part in parts if importlib.util.find_spec(part) is None]
    if missing:
        raise SetupError(
            f"The {module.removesuffix('s')} is not installed here (missing: {', '.join(missing)}).",
            next_step="Servers come with a clone of the repository (`make install`) or as images, not in the wheel.",
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
