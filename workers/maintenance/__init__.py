"""Keeps the store tidy, whoever else is alive: what is swept, and how Celery's schedule rings for it."""
