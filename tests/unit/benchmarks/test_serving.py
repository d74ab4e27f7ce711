"""The clients of the gateway's measurements: every event is counted once, however TCP cuts the bytes up."""

import random
import socket

from benchmarks import noisy
from benchmarks.serving.poster import Answer, Line
from benchmarks.serving.readers import Followed

HEAD = b"HTTP/1.1 200 OK\r\nX-Headrace-Job: job_1\r\ntransfer-encoding: chunked\r\n\r\n"


def test_a_stream_may_be_cut_anywhere() -> None:
    whole = HEAD + b"a\r\ndata: {}\n\n\r\n" * 3
    for cut in range(1, len(whole)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.setblocking(False)
            stream = Followed(theirs)
            for part in (whole[:cut], whole[cut:]):
                ours.sendall(part)
                stream.hear()
            stream.hear()  # nothing more
            assert (len(stream.came), stream.job_id, stream.closed) == (3, "job_1", False)
            ours.shutdown(socket.SHUT_WR)
            stream.hear()
            assert stream.closed


def test_an_answer_is_whole_when_its_length_has_come() -> None:
    with socket.socket() as connection:
        line = Line(connection)
        for part, answer in (
            (b"HTTP/1.1 202 Acc", None),
            (b"epted\r\nContent-Length: 2\r\n\r\n", None),
            (b"{", None),
            (b"}", (202, b"{}")),
        ):
            line.heard += part
            assert line.answer() == answer
    assert Answer(due=1.0, came=1.5, status=202, body=b"").seconds == 0.5


def test_the_noisy_tenant_sends_as_much_more_as_is_said() -> None:
    counted = {heaps: len(list(noisy.arrivals("t", 4.0, 100.0, random.Random(1), heaps))) for heaps in (False, True)}
    assert counted[True] == 400
    assert 330 < counted[False] < 470
    assert all(0 <= arrival.at_s < 100 for arrival in noisy.arrivals("t", 4.0, 100.0, random.Random(2), heaps=False))
