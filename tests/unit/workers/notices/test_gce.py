"""Compute Engine's notices, from a server that answers as Google's does."""

import threading

import pytest

from tests.metadata_server import LIMIT_S, MetadataStandIn
from workers.notices.base import NoAnswer, Notice
from workers.notices.gce import GceNotices
from workers.notices.metadata import MetadataServer


@pytest.fixture
def notices(cloud: MetadataStandIn) -> GceNotices:
    return GceNotices(MetadataServer(cloud.url))


def test_the_first_question_is_answered_at_once_and_the_next_when_there_is_news(
    cloud: MetadataStandIn, notices: GceNotices
) -> None:
    assert notices.is_here()
    assert notices.poll() is None
    heard: list[Notice | None] = []
    thread = threading.Thread(target=lambda: heard.append(notices.poll()))
    thread.start()
    cloud.set_key("preempted", "TRUE")
    thread.join(LIMIT_S)
    assert heard == [Notice("gce", "this instance is preempted", 30.0)]
    assert "last_etag" not in cloud.asked[1]
    assert "wait_for_change=true&timeout_sec=5&last_etag=46414c5345" in cloud.asked[-1]


def test_maintenance_that_ends_the_instance_is_a_notice_and_a_migration_is_not(
    cloud: MetadataStandIn, notices: GceNotices
) -> None:
    cloud.set_key("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")
    assert notices.poll() is None
    cloud.set_key("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
    cloud.set_key("preempted", "FALSE ")
    assert notices.poll() == Notice("gce", "host maintenance ends this instance")


@pytest.mark.parametrize("answer", ["", "perhaps", "true", "<html>TRUE</html>"])
def test_a_wrong_answer_is_no_notice(cloud: MetadataStandIn, notices: GceNotices, answer: str) -> None:
    cloud.set_key("preempted", answer)
    with pytest.raises(NoAnswer):
        notices.poll()


def test_an_etag_of_any_shape_is_sent_back_whole(cloud: MetadataStandIn, notices: GceNotices) -> None:
    cloud.etag_suffix = '"a&b=c d\\'
    assert notices.poll() is None
    cloud.set_key("preempted", "TRUE")
    assert notices.poll() is not None
    assert "last_etag=46414c5345%22a%26b%3Dc+d%5C" in cloud.asked[-1]


def test_one_answer_that_fails_hides_no_end_that_another_says(cloud: MetadataStandIn, notices: GceNotices) -> None:
    cloud.broken = frozenset({"preempted"})
    with pytest.raises(NoAnswer):
        notices.poll()
    cloud.set_key("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
    assert notices.poll() == Notice("gce", "host maintenance ends this instance")
