"""A call that may take longer than tokens can wait: made in a thread of its own. Knows nothing of the call."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def beside(call: Callable[[], T], ring: Callable[[], None]) -> Future[T]:
    """The answer to come; `ring` is called once it is there. The thread does not hold up the end of the process."""
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again to whoever asks for the answer
            answer.set_exception(error)
        ring()

    threading.Thread(target=work, name="beside", daemon=True).start()
    return answer
