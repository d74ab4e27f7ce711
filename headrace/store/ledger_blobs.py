"""The blobs that a ledger needs to outlive Redis: how their keys begin. They are kept by age; knows no message."""

CLAIM_CHECKS = "ledger/"
"""Messages too large for a broker, by job."""
DONE = "done/"
"""Marks of jobs that have ended, and their results."""
PARKED = "parked/"
"""Messages that are none, with the reason, by their sha256: for a person."""

KEPT = (CLAIM_CHECKS, DONE, PARKED)
