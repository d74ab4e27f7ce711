"""Which blobs go: a table of what the store has and what the records say."""

import pytest

from headrace.store.blob_sweep import GRACE_MS, Claims, unclaimed
from headrace.store.blobs import Blob
from headrace.store.payloads import job_of

NOW = 1_700_000_000_000
RESULT, PROMPT = "results/job_1.3", "prompts/job_1"


@pytest.mark.parametrize(
    ("key", "age", "claim", "goes"),
    [
        (RESULT, GRACE_MS + 1, None, True),
        (RESULT, GRACE_MS, None, False),
        (PROMPT, GRACE_MS + 1, None, True),
        (PROMPT, GRACE_MS + 1, Claims(False, frozenset({f"blob:{PROMPT}"})), False),
        (RESULT, GRACE_MS + 1, Claims(False, frozenset()), False),  # put, and its end not yet written
        (RESULT, GRACE_MS + 1, Claims(True, frozenset({f"blob:{RESULT}"})), False),
        (RESULT, GRACE_MS + 1, Claims(True, frozenset({"blob:results/job_1.4"})), True),
        (RESULT, GRACE_MS + 1, Claims(True, frozenset({"hr:result:job_1"})), True),
        ("results/readme.txt", GRACE_MS + 1, None, False),
        ("done/job_1", GRACE_MS + 1, None, False),
    ],
)
def test_what_goes(key: str, age: int, claim: Claims | None, goes: bool) -> None:
    claims = {} if claim is None else {"job_1": claim}
    assert unclaimed([Blob(key, 1, NOW - age)], claims, NOW) == ((key,) if goes else ())


def test_whose_blob_it_is() -> None:
    assert (job_of(PROMPT), job_of(RESULT)) == ("job_1", "job_1")
    for key in ("results/job_1.x", "results/job_1/2", "other/job_1", "results/file-1"):
        assert job_of(key) is None
