"""Asks a source of notices again and again beside the worker, and tells it once. Knows no cloud.

Whatever the source does, the worker goes on: what cannot be asked or understood is a log line.
"""

import contextvars
import threading
from collections.abc import Callable

import structlog

from workers.notices.base import Notice, NoticeSource

FAILED_S = 5.0
"""Before a source that gave no answer is asked again."""

log = structlog.get_logger(__name__)


class NoticeWatcher:
    """`find` runs on the watcher's own thread, since finding out where this is may take a second.

    `on_notice` is called once, with the notice that ends the worker. One that stands already at the first look, while
    nothing is `at_work`, was for whoever ran here before: `on_standing(True)` then asks for no new work, and
    `on_standing(False)` follows once it is lifted. So a worker that is started again on a machine which is to go does
    not begin what it cannot end, and is not ended and started over and over.
    """

    def __init__(
        self,
        find: Callable[[], NoticeSource | None],
        on_notice: Callable[[Notice], None],
        on_standing: Callable[[bool], None],
        at_work: Callable[[], bool],
        failed_s: float = FAILED_S,
    ) -> None:
        self._find = find
        self._on_notice = on_notice
        self._on_standing = on_standing
        self._at_work = at_work
        self._failed_s = failed_s
        self._heard: Notice | None = None
        self._away = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        in_context = contextvars.copy_context().run  # what the log says of this worker, it says here too
        self._thread = threading.Thread(target=in_context, args=(self._run,), name="notices", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns at once: a question that is on its way is left alone."""
        self._stop.set()

    def join(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            source = self._find()
        except Exception:
            log.exception("notices cannot be asked for")
            return
        if source is None:
            log.info("no notices are to be had here")
            return
        looked = standing = False
        while not self._stop.is_set():
            if not self._ask(source):
                self._stop.wait(self._failed_s)
                continue
            notice = self._heard
            if notice is not None and (self._at_work() or (looked and not standing)):
                self._tell(notice)
                return
            if (notice is not None) != standing:
                standing = notice is not None
                self._stand(notice)
            looked = True
            self._stop.wait(source.pause_s)

    def _ask(self, source: NoticeSource) -> bool:
        """Whether there was an answer, which is `_heard` then. Trouble is said once."""
        try:
            self._heard = source.poll()
        except Exception as error:  # noqa: BLE001 - a cloud's trouble is not the worker's: it is asked again
            if not self._away:
                log.warning("no answer to the question for notices", reason=str(error) or repr(error))
            self._away = True
            return False
        self._away = False
        return True

    def _stand(self, notice: Notice | None) -> None:
        if notice is None:
            log.warning("the notice is lifted")
        else:
            log.warning("a notice stands already, nothing is claimed", source=notice.source, reason=notice.reason)
        self._on_standing(notice is not None)

    def _tell(self, notice: Notice) -> None:
        if not self._stop.is_set():
            log.warning("notice", source=notice.source, reason=notice.reason, seconds_left=notice.seconds_left)
            self._on_notice(notice)
