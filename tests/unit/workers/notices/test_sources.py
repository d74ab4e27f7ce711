"""Where the worker is, and a server that does everything wrong."""

import queue
import threading
from collections.abc import Callable

import pytest

from headrace.contract.errors import SetupError
from headrace.settings import WorkerSettings
from tests.metadata_server import LIMIT_S, MetadataStandIn
from workers.notices.base import NoAnswer
from workers.notices.ec2 import Ec2Notices
from workers.notices.gce import GceNotices
from workers.notices.metadata import MetadataServer
from workers.notices.sources import AUTO, NONE, SOURCES, find_source

NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize(("here", "expected"), [("ec2", Ec2Notices), ("gce", GceNotices)])
def test_it_finds_out_where_it_is(cloud: MetadataStandIn, here: str, expected: type) -> None:
    cloud.here = {here}
    assert type(find_source(AUTO, MetadataServer(cloud.url))) is expected


def test_a_machine_of_ones_own_has_no_notices() -> None:
    assert find_source(AUTO, MetadataServer(NOWHERE)) is None
    assert find_source(NONE, MetadataServer(NOWHERE)) is None


def test_every_source_can_be_set_by_its_name() -> None:
    for name in (NONE, AUTO, *SOURCES):
        assert WorkerSettings.model_validate({"notices": name}).notices == name


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda cloud: setattr(cloud, "hang", True),
        lambda cloud: setattr(cloud, "garbage", b"\xff\xfe\r\n\r\n"),
        lambda cloud: setattr(cloud, "garbage", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort"),
        lambda cloud: setattr(cloud, "wrong", "x" * 100_000),
        lambda cloud: setattr(cloud, "wrong", "["),
    ],
    ids=["hang", "no HTTP", "cut short", "endless", "wrong"],
)
def test_whatever_a_server_does_is_no_answer(
    cloud: MetadataStandIn, name: str, spoil: Callable[[MetadataStandIn], None]
) -> None:
    source = SOURCES[name](MetadataServer(cloud.url, timeout_s=0.2))
    cloud.interrupt()
    spoil(cloud)
    with pytest.raises(NoAnswer):
        source.poll()


@pytest.mark.parametrize(
    "drip", [b"HT", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["status", "header", "body"]
)
def test_a_server_that_drips_is_waited_for_once(cloud: MetadataStandIn, drip: bytes) -> None:
    cloud.drip = drip
    asked = queue.SimpleQueue[str]()

    def ask() -> None:
        try:
            MetadataServer(cloud.url, timeout_s=0.2).ask("/", {})
        except NoAnswer as error:
            asked.put(str(error))

    threading.Thread(target=ask, daemon=True).start()
    assert "timed out" in asked.get(timeout=LIMIT_S / 2)


@pytest.mark.parametrize(
    "url", ["https://169.254.169.254", "169.254.169.254", "http://", "ftp://x", "http://[", "http://x:y"]
)
def test_an_address_that_is_none_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(SetupError, match="no metadata server"):
        MetadataServer(url)
