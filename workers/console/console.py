"""What one inference worker answers on Celery's console. Knows the worker, not how a question arrives.

Every method returns at once or nearly so, since Celery's loop waits for it: the work itself is done by other threads.
"""

import queue

from headrace.contract.errors import StoreUnavailable
from headrace.contract.ids import is_job_id
from headrace.contract.job import State
from headrace.queue.base import Outcome
from workers.console.board import Board
from workers.console.commands import Answers, Reply, ok, refused
from workers.console.errands import Errands
from workers.inference.worker import InferenceWorker

PATIENCE_S = 0.5
"""How long Celery's loop waits for the store's answer to a cancel. Whoever asks waits a second, as a rule."""


class Console:
    """One for each worker process."""

    def __init__(self, worker: InferenceWorker, board: Board) -> None:
        self._worker = worker
        self._board = board
        self._errands = Errands()

    def answers(self) -> Answers:
        return {
            "capacity": self.capacity,
            "leases": self.leases,
            "step_age": self.step_age,
            "drain": self.drain,
            "cancel": self.cancel,
            "pause": self.pause,
            "resume": self.resume,
        }

    def capacity(self) -> Reply:
        status = self._worker.status()
        return {
            "lane": status.lane,
            "state": status.state,
            "kv_tokens": {
                "whole": status.kv_tokens,
                "held": status.load.kv_tokens,
                # The estimates of what is held may be more than there is.
                "free": max(0, status.kv_tokens - status.load.kv_tokens),
            },
            "jobs": {"held": status.load.jobs, "max": status.max_jobs},
        }

    def leases(self) -> Reply:
        return {
            row.job_id: {
                "attempt": row.attempt,
                "epoch": row.epoch,
                "age_ms": round(age_s * 1000),
                "tokens_journaled": row.tokens,
            }
            for row, age_s in self._board.rows()
        }

    def step_age(self) -> Reply:
        age_s = self._worker.status().step_age_s
        return {"ms": None if age_s is None else round(age_s * 1000)}

    def drain(self) -> Reply:
        self._worker.request_stop()
        return ok("drains: its jobs go back, then it ends")

    def pause(self) -> Reply:
        self._worker.pause(True)
        return ok("paused: claims nothing new, what runs goes on")

    def resume(self) -> Reply:
        if self._worker.pause(False):
            return ok("resumed, and paused still: a notice says that this machine is to go")
        return ok("claims again")

    def cancel(self, job: str) -> Reply:
        """Any job of the fleet, wherever it is."""
        if not is_job_id(job):
            return refused(f"{job!r} is no job id; they look like job_01k…")
        try:
            reply = self._errands.run(lambda: self._worker.cancel(job), PATIENCE_S)
        except TimeoutError:
            return ok(f"{job} is to be cancelled; the store has not answered yet")
        except queue.Full:
            return refused("too many cancels wait for the store; ask again later")
        except StoreUnavailable as error:
            return refused(error.explain())
        if reply.outcome is Outcome.MISSING:
            return refused(f"there is no job {job}, or it is past its retention")
        if reply.outcome is Outcome.OK or reply.state is State.CANCELLED:
            return ok(f"{job} is cancelled")
        return refused(f"{job} had ended already: {reply.state}")
