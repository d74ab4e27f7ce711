"""Records and results: what is written is read, and versions may differ."""

from dataclasses import fields, replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headrace.contract.errors import ErrorInfo
from headrace.contract.generation import Choice, FrozenRequest, Sampling, TokenLogprobs, Usage, pack_ids
from headrace.contract.job import Fallback, Job, JobClass, Kind, Past, State
from headrace.store.records import from_hash, pack_result, result_size, to_hash, unpack_result

FULL = Job(
    id="job_1",
    model="tiny",
    lane="tiny@stable",
    revision="r1",
    job_class=JobClass.BATCH,
    kind=Kind.COMPLETION,
    request=FrozenRequest(
        (0, 1, 4_294_967_295), Sampling(2**63 - 1, 0.1, 0.95, 40, 0.05, -0.5, 1.5, 1.1), 10, ("\n", "ä"), 2, 5, 0, True
    ),
    tenant="t",
    state=State.DEAD,
    epoch=3,
    lease_id="l",
    owner="w",
    digest="d",
    attempt=4,
    retries=1,
    deaths=2,
    deaths_total=5,
    death_offset=7,
    seq=9,
    next_offset=(3, 0),
    kv_tokens=99,
    place=1_700_000_000_000,
    created_at=1_700_000_000_001,
    queued_at=1_700_000_000_002,
    leased_at=1_700_000_000_003,
    first_token_at=1_700_000_000_004,
    ended_at=1_700_000_000_005,
    deadline_at=1_700_000_000_006,
    error=ErrorInfo("poison", 'a "b"', False),
    digests=("d1", "d2"),
    history=(Past(1, "w", "worker_died", "ü", 1_700_000_000_003, 2), Past(2, "v", "engine_error", "", 9, 3)),
    usage=Usage(3, 3, 1),
    fallback=Fallback("other", "other@stable", "r2", FrozenRequest((5,), Sampling(1), 3, ("x",)), ""),
    fallback_of="first",
    prompt_ref="blob:prompts/job_1",
    result_ref="hr:result:job_1",
    idem_key="k",
    redrive_of="job_0",
    redriven_as="job_2",
    replay_of="job_00",
    digest_wanted="d0",
    ledger_receipt="x",
    traceparent="00-1-2-01",
    metadata={"ключ": "значение"},
)


def as_redis_sends(job: Job) -> dict[bytes, bytes]:
    def encode(value: bytes | str | int) -> bytes:
        return value if isinstance(value, bytes) else str(value).encode()

    return {name.encode(): encode(value) for name, value in to_hash(job).items()}


def test_every_field_survives() -> None:
    inline = replace(FULL, prompt_ref="")
    assert from_hash(as_redis_sends(inline)) == inline
    default = Job("job_2", "m", "m@s", "r", JobClass.STANDARD, Kind.CHAT, FULL.request)
    for field in fields(Job):
        if field.name not in ("id", "model", "lane", "revision", "job_class", "kind", "request", "schema"):
            assert getattr(FULL, field.name) != getattr(default, field.name), f"{field.name} is not put to the test"


def test_a_prompt_that_lies_elsewhere_is_not_in_the_record() -> None:
    stored = as_redis_sends(replace(FULL, digest_wanted=""))
    assert (stored[b"prompt_ids"], stored[b"prompt_tokens"]) == (b"", b"3")
    assert stored[b"needs"] == b"2"
    assert as_redis_sends(FULL)[b"needs"] == b"3"
    assert from_hash(stored) == replace(FULL, digest_wanted="", request=replace(FULL.request, prompt_ids=()))


def test_what_says_nothing_takes_no_room() -> None:
    written = to_hash(replace(FULL, lease_id="", error=None, deadline_at=None, metadata={}))
    assert not {"lease_id", "error", "deadline_at", "metadata"} & set(written)


def test_another_version_of_a_record_is_read() -> None:
    stored = as_redis_sends(replace(FULL, prompt_ref=""))
    stored[b"colour"] = b"blue"
    stored[b"request"] = b'{"sampling":{"seed":1,"colour":2},"max_tokens":3,"colour":4}'
    stored[b"error"] = b'{"code":"c","message":"m","colour":1}'
    del stored[b"deaths"]
    job = from_hash(stored)
    assert job.deaths == 0
    assert job.request == FrozenRequest(FULL.request.prompt_ids, Sampling(1), 3)
    assert job.error == ErrorInfo("c", "m")


def test_a_torn_record_is_told() -> None:
    with pytest.raises(KeyError):
        from_hash({b"id": b"job_1"})


ids = st.lists(st.integers(0, 2**32 - 1), max_size=20).map(tuple)


@given(st.lists(st.tuples(ids, st.sampled_from(["stop", "length"])), max_size=4))
def test_results_survive(parts: list[tuple[tuple[int, ...], str]]) -> None:
    choices = tuple(Choice(index, *part) for index, part in enumerate(parts))
    assert unpack_result(pack_result(choices)) == choices
    assert result_size(choices) == len(pack_result(choices))


def test_results_keep_log_probabilities() -> None:
    one, two = TokenLogprobs(-0.5, ((1, -0.5),)), TokenLogprobs(-1.5, ((2, -0.25), (1, -1.5)))
    choices = (
        Choice(0, (1, 2), "stop", (one, two), (None, two)),
        Choice(1, (), "length", (), (None,)),
        Choice(2, (3,), "stop"),
        Choice(3, (1,), "length", (one,)),
    )
    assert unpack_result(pack_result(choices)) == choices
    assert result_size(choices) == len(pack_result(choices))


def test_results_of_another_version_are_read() -> None:
    """An older one has ids alone, and an older reader looks no further than those and wants whole words behind them."""
    older = b'[[0,"stop",2]]\n' + pack_ids((1, 2))
    assert unpack_result(older) == (Choice(0, (1, 2), "stop"),)
    assert pack_result([Choice(0, (1, 2), "stop")]) == older
    newer = pack_result([Choice(0, (1, 2), "stop", (TokenLogprobs(-0.5), TokenLogprobs(-1.0)))])
    assert newer.startswith(older)
    assert len(newer[len(older) :]) % 4 == 0
