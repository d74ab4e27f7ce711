"""EC2's notices, from a server that answers as EC2's does."""

from datetime import UTC, datetime, timedelta

import pytest
import structlog

from tests.metadata_server import MetadataStandIn
from workers.notices.base import NoAnswer, Notice
from workers.notices.ec2 import Ec2Notices
from workers.notices.metadata import MetadataServer


@pytest.fixture
def notices(cloud: MetadataStandIn) -> Ec2Notices:
    return Ec2Notices(MetadataServer(cloud.url))


def test_nothing_is_said_while_nothing_is_there(cloud: MetadataStandIn, notices: Ec2Notices) -> None:
    assert notices.is_here()
    cloud.lifecycle = "InService"
    assert notices.poll() is None
    assert notices.poll() is None
    assert [line for line in cloud.asked if line.startswith("PUT")] == ["PUT /latest/api/token"]


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_an_interruption_says_how_long_there_is(cloud: MetadataStandIn, notices: Ec2Notices, action: str) -> None:
    cloud.interrupt(action, seconds=90)
    notice = notices.poll()
    assert notice is not None
    assert (notice.source, notice.reason.split(":")[1].split()[0]) == ("ec2", action)
    assert notice.seconds_left == pytest.approx(90, abs=2)


@pytest.mark.parametrize("skew", [timedelta(hours=-3), timedelta(hours=3)])
def test_a_clock_that_is_off_does_not_matter(cloud: MetadataStandIn, notices: Ec2Notices, skew: timedelta) -> None:
    cloud.skew = skew
    cloud.interrupt(seconds=120)
    notice = notices.poll()
    assert notice is not None
    assert notice.seconds_left == pytest.approx(120, abs=2)


def test_a_time_that_is_over_leaves_no_seconds(cloud: MetadataStandIn, notices: Ec2Notices) -> None:
    cloud.interrupt(seconds=-30)
    notice = notices.poll()
    assert notice is not None
    assert notice.seconds_left == 0.0


def test_a_token_that_has_run_out_is_replaced(cloud: MetadataStandIn, notices: Ec2Notices) -> None:
    assert notices.poll() is None
    cloud.tokens.clear()
    cloud.interrupt()
    assert notices.poll() is not None
    assert len([line for line in cloud.asked if line.startswith("PUT")]) == 2


def test_an_auto_scaling_group_may_end_it_too(cloud: MetadataStandIn, notices: Ec2Notices) -> None:
    cloud.lifecycle = "Terminated"
    assert notices.poll() == Notice("ec2", "the Auto Scaling group ends this instance")


INTERRUPTION, LIFECYCLE = "spot/instance-action", "autoscaling/target-lifecycle-state"


@pytest.mark.parametrize("broken", [INTERRUPTION, LIFECYCLE])
def test_one_answer_that_fails_hides_no_end_that_another_says(
    cloud: MetadataStandIn, notices: Ec2Notices, broken: str
) -> None:
    cloud.broken = frozenset({broken})
    cloud.lifecycle = "InService"
    with pytest.raises(NoAnswer, match=f"{broken} answered with status 500"):
        notices.poll()
    cloud.lifecycle = "Terminated"
    cloud.interrupt()
    notice = notices.poll()
    assert notice is not None
    assert ("Auto Scaling" in notice.reason) is (broken == INTERRUPTION)


def test_a_recommendation_is_a_log_line_and_only_one(cloud: MetadataStandIn, notices: Ec2Notices) -> None:
    cloud.rebalance = '{"noticeTime": "2026-11-23T08:22:00Z"}'
    with structlog.testing.capture_logs() as lines:
        assert notices.poll() is None
        assert notices.poll() is None
    assert [line["log_level"] for line in lines] == ["warning"]


@pytest.mark.parametrize(
    "answer", ["", "[]", "{}", "null", '{"action": "stop"}', '{"action": "stop", "time": "soon"}', "<html>", "\x00"]
)
def test_a_wrong_answer_is_no_notice(cloud: MetadataStandIn, notices: Ec2Notices, answer: str) -> None:
    cloud.instance_action = answer
    with pytest.raises(NoAnswer):
        notices.poll()


def test_a_server_without_a_date_is_taken_at_our_own_time(cloud: MetadataStandIn) -> None:
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    cloud.skew = at - datetime.now(UTC)
    cloud.interrupt(seconds=60)
    cloud.dated = False
    notice = Ec2Notices(MetadataServer(cloud.url), now=lambda: at).poll()
    assert notice is not None
    assert notice.seconds_left == pytest.approx(60, abs=2)
