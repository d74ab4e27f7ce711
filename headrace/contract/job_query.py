"""What a list of jobs is asked for. Knows the record's fields, not where jobs are kept nor how they are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.contract.job import Job, JobClass, Kind, State


@dataclass(frozen=True, slots=True)
class JobQuery:
    """What a page is to hold. None and empty let everything pass; times are milliseconds, both ends included.

    `after` and `before` are job ids: the page behind the one in the order of the list, or the page in front of it.
    """

    limit: int = 20
    after: str = ""
    before: str = ""
    states: frozenset[State] = frozenset()
    model: str = ""
    job_class: JobClass | None = None
    kind: Kind | None = None
    created_after: int | None = None
    created_before: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def takes(self, job: Job) -> bool:
        """Whether a job passes every filter but those of time."""
        return (
            (not self.states or job.state in self.states)
            and (not self.model or job.model == self.model)
            and (self.job_class is None or job.job_class is self.job_class)
            and (self.kind is None or job.kind is self.kind)
            and all(job.metadata.get(name) == value for name, value in self.metadata.items())
        )
