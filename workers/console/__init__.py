"""The fleet on Celery's console: commands that ask or tell a worker, and its jobs as task events. Knows no tokens."""
