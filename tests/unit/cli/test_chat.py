"""When Ctrl-C may interrupt a conversation."""

import signal

from headrace.cli.chat import interrupt_held


def interrupted(times: int) -> list[str]:
    """How far a held block gets."""
    reached = []
    try:
        with interrupt_held():
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
            reached.append("the end of the block")
        reached.append("what follows")
    except KeyboardInterrupt:
        reached.append("interrupted")
    return reached


def test_ctrl_c_counts_at_the_end_of_the_block_and_a_second_one_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert interrupted(0) == ["the end of the block", "what follows"]
    assert interrupted(1) == ["the end of the block", "interrupted"]
    assert interrupted(2) == ["interrupted"]
    assert signal.getsignal(signal.SIGINT) is before
