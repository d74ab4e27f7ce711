"""All that is in Redis, read in one step: records, journals, the sets that jobs stand in, and what outlives them.

Knows the shapes of `headrace/store/keys.py` and no verb.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from headrace.contract.events import Event
from headrace.contract.job import Job
from headrace.store import keys
from headrace.store.journal import parse_entry
from headrace.store.records import from_hash

_READ_ALL = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind, value = redis.call('TYPE', key).ok, nil
  if kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  elseif kind == 'stream' then value = redis.call('XRANGE', key, '-', '+')
  else value = redis.call('GET', key) end
  found[#found + 1] = { key, redis.call('PTTL', key), value }
end
return found
"""

FOREVER = -1
PLACES = ("lane", "leases", "delay", "deadlines", "accepted", "held", "dlq", "jobs")
"""Kinds of keys whose members are jobs."""
FLEETS = ("reap", "card", "cards", "workers", "fleet", "tokenizer", "tokenizers")
"""Kinds of keys that belong to the fleet and not to a job."""


@dataclass(frozen=True, slots=True)
class StoreView:
    """`members` are (key, job id) of all sets that jobs stand in, with their scores (0 in plain sets); `ttls` are
    milliseconds, FOREVER for none; `passed` says since when a job has been passed over."""

    records: Mapping[str, Job]
    journals: Mapping[str, list[Event]]
    members: Mapping[tuple[str, str], float]
    ttls: Mapping[str, int]
    passed: Mapping[str, int]

    def ttl(self, key: str) -> int:
        """0 for a key that is not there."""
        return self.ttls.get(key, 0)


def read_store(client: redis.Redis) -> StoreView:
    """One script, so that nothing moves meanwhile."""
    raw: Any = client.eval(_READ_ALL, 0)
    records: dict[str, Job] = {}
    journals: dict[str, list[Event]] = {}
    members: dict[tuple[str, str], float] = {}
    ttls: dict[str, int] = {}
    passed: dict[str, int] = {}
    for name, ttl, value in raw:
        key = name.decode()
        ttls[key] = ttl
        kind, _, rest = key.removeprefix(keys.PREFIX).partition(":")
        if kind == "job":
            fields = _pairs(value)
            records[rest] = from_hash(fields)
            if b"passed_at" in fields:
                passed[rest] = int(fields[b"passed_at"])
        elif kind == "ev":
            journals[rest] = [parse_entry(entry_id, _pairs(fields)) for entry_id, fields in value]
        elif kind == "held":
            members |= {(key, job_id.decode()): 0.0 for job_id in value}
        elif kind in PLACES:
            members |= {(key, job_id.decode()): float(score) for job_id, score in _pairs(value).items()}
    return StoreView(records, journals, members, ttls, passed)


def copy_store(client: redis.Redis) -> dict[bytes, tuple[int, bytes]]:
    """All keys as they are, for `put_back`."""
    names: Any = client.keys()
    with client.pipeline() as pipe:
        for name in names:
            pipe.pttl(name)
            pipe.dump(name)
        answers = pipe.execute()
    return {
        name: (max(0, ttl), value) for name, ttl, value in zip(names, answers[::2], answers[1::2], strict=True) if value
    }


def put_back(client: redis.Redis, copied: Mapping[bytes, tuple[int, bytes]]) -> None:
    """Redis as it was when it was copied, as after a failover to a replica that has not heard of what came since."""
    with client.pipeline() as pipe:
        pipe.flushall()
        for name, (ttl, value) in copied.items():
            pipe.restore(name, ttl, value)
        pipe.execute()


def _pairs(flat: Any) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
