"""What a notice that the machine is to go means to the worker on it. Knows what is asked of whom, and no cloud."""

import math
from collections.abc import Callable

from headrace.settings import WorkerSettings
from workers.notices.base import Notice
from workers.notices.metadata import MetadataServer
from workers.notices.sources import NONE, find_source
from workers.notices.watcher import NoticeWatcher

NOTICE_MARGIN_S = 2.0
"""How long before its machine goes a worker is to be gone; and what its end may take when there is no time left."""


def watch_for_notices(
    settings: WorkerSettings,
    stop: Callable[[float], None],
    pause: Callable[[bool], None],
    at_work: Callable[[], bool],
) -> NoticeWatcher | None:
    """Not started yet; None where nobody is to be asked. `stop` takes the seconds that are left for a drain. Raises
    SetupError for an address that is none."""
    if settings.notices == NONE:
        return None
    server = MetadataServer(settings.notices_url)

    def on_notice(notice: Notice) -> None:
        left_s = math.inf if notice.seconds_left is None else notice.seconds_left
        stop(max(NOTICE_MARGIN_S, left_s - NOTICE_MARGIN_S))

    return NoticeWatcher(lambda: find_source(settings.notices, server), on_notice, on_standing=pause, at_work=at_work)
