"""The sources by their names in the settings, and which of them is here. Knows no worker."""

from collections.abc import Callable, Mapping

from workers.notices import ec2, gce
from workers.notices.base import NoAnswer, NoticeSource
from workers.notices.metadata import MetadataServer

SOURCES: Mapping[str, Callable[[MetadataServer], NoticeSource]] = {
    ec2.NAME: ec2.Ec2Notices,
    gce.NAME: gce.GceNotices,
}
AUTO = "auto"
NONE = "none"


def find_source(name: str, server: MetadataServer) -> NoticeSource | None:
    """The source of that name; with `auto` the first that is here, or None: a machine of one's own has none."""
    if name != AUTO:
        return SOURCES[name](server) if name in SOURCES else None
    for make in SOURCES.values():
        source = make(server)
        try:
            if source.is_here():
                return source
        except NoAnswer:
            continue
    return None
