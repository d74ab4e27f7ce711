"""The names of everything in Redis. Knows the prefix and the shapes; holds no connection.

Every key here has a TTL or an owner that removes it; `docs/` and CONTRACT list them with their types.
"""

PREFIX = "hr:"

LEASES = f"{PREFIX}leases"
DELAY = f"{PREFIX}delay"
DEADLINES = f"{PREFIX}deadlines"
ACCEPTED = f"{PREFIX}accepted"
"""Sorted set by time: jobs that are written down and not queued yet, since a ledger is still to have them."""
WORKERS = f"{PREFIX}workers"
"""Sorted set of the workers by the time of their last beat, so that nobody has to look through all keys for them. Each
beat removes those that stopped long ago."""
FLEET = f"{PREFIX}fleet"
"""String, an id drawn once: whose blobs may be swept away. Owned by the fleet, and never deleted."""
OUTBOX = f"{PREFIX}outbox"
REAP = f"{PREFIX}reap"
"""Hash, when anybody last reaped and until when leases are left alone; owned by the fleet."""
PROBE = f"{PREFIX}probe"
"""String with a TTL, written to see whether the store takes writes."""
CARDS = f"{PREFIX}cards"
"""Set of the lanes that have a card; owned by the cards."""
TOKENIZERS = f"{PREFIX}tokenizers"
"""Hash, revision to the sha256 of its tokenizer, so that ids of an older revision can still be read."""


def job(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}"


def journal(job_id: str) -> str:
    return f"{PREFIX}ev:{job_id}"


def live(job_id: str) -> str:
    """Channel: the public pub/sub interface."""
    return f"{PREFIX}live:{job_id}"


def result(job_id: str) -> str:
    return f"{PREFIX}result:{job_id}"


def lane(lane: str, job_class: str) -> str:
    return f"{PREFIX}lane:{lane}:{job_class}"


def due(lane: str, job_class: str) -> str:
    """Sorted set: those of a lane's ready jobs that have a deadline, by its time."""
    return f"{PREFIX}lane:{lane}:{job_class}:due"


def fair(lane: str, job_class: str) -> str:
    """Sorted set with a TTL: where each tenant's next job will stand in this lane, and whose turn it is."""
    return f"{PREFIX}fair:{lane}:{job_class}"


def job_index(tenant: str) -> str:
    """Sorted set of a tenant's job ids by time of birth; its entries are removed once their record is gone."""
    return f"{PREFIX}jobs:{tenant}"


def wake(lane: str) -> str:
    return f"{PREFIX}wake:{lane}"


def dlq(lane: str) -> str:
    return f"{PREFIX}dlq:{lane}"


def card(lane: str) -> str:
    return f"{PREFIX}card:{lane}"


def tokenizer(sha256: str) -> str:
    return f"{PREFIX}tokenizer:{sha256}"


def worker(worker_id: str) -> str:
    return f"{PREFIX}w:{worker_id}"


def held(worker_id: str) -> str:
    """Set of the job ids a worker holds; emptied by the scripts that end or move them."""
    return f"{PREFIX}held:{worker_id}"


def control(worker_id: str) -> str:
    return f"{PREFIX}ctl:{worker_id}"


def idempotency(tenant: str, key: str) -> str:
    escaped = tenant.replace("%", "%25").replace(":", "%3A")
    return f"{PREFIX}idem:{escaped}:{key}"


def output_average(lane: str, tenant: str) -> str:
    """String with a TTL: moving average of completion tokens, for the claim estimate."""
    return f"{PREFIX}avg:{lane}:{tenant}"
