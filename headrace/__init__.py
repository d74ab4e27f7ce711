"""Headrace: work put on a queue comes back as tokens. Knows the public names of the client side and nothing else."""

__version__ = "0.1.0"
