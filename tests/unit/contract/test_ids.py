"""Ids from outside are told from anything else, and say when they were made."""

import time

import pytest

from headrace.contract.ids import born_ms, is_job_id, new_job_id


def test_a_new_id_is_one_and_knows_its_time() -> None:
    before = time.time_ns() // 1_000_000
    job_id = new_job_id()
    assert is_job_id(job_id)
    assert before <= born_ms(job_id) <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("text", ["job_" + "0" * 26, "job_7" + "z" * 25])
def test_every_id_has_a_time(text: str) -> None:
    assert is_job_id(text)
    assert born_ms(text) >= 0


@pytest.mark.parametrize(
    "text", ["", "job_", "job_8" + "z" * 25, "job_" + "0" * 25, "job_" + "u" * 26, "JOB_" + "0" * 26]
)
def test_what_is_no_id(text: str) -> None:
    assert not is_job_id(text)
