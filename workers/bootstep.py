"""Ties the inference worker to the life of a Celery worker. Knows when to start and stop, not what runs."""

import signal
from typing import Any

from celery import bootsteps
from celery.signals import worker_shutting_down
from celery.worker import state

from workers.inference.drain import Watchdog
from workers.inference.worker import InferenceWorker


def step_for(inference: InferenceWorker, watchdog: Watchdog) -> type[bootsteps.StartStopStep]:
    """A step of the worker's blueprint that owns this one inference worker."""

    class InferenceStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.components:Pool",)

        def start(self, parent: Any) -> None:
            """Must not block: the engine loads while Celery goes on."""
            # Celery would restart itself on SIGHUP, and end with an error on Ctrl-C.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))
            worker_shutting_down.connect(self.shutting_down, weak=False, dispatch_uid="headrace")
            inference.start(on_stop=watchdog.arm, on_end=self.end_celery)

        def shutting_down(self, **_: Any) -> None:
            """In the signal handler: Celery's loop itself may notice up to a second later."""
            inference.request_stop()

        def end_celery(self, exit_code: int) -> None:
            """The inference worker has ended, so there is nothing to stay for."""
            state.should_stop = exit_code

        def close(self, parent: Any) -> None:
            inference.request_stop()

        def stop(self, parent: Any) -> None:
            inference.request_stop()
            inference.join()

    return InferenceStep
