"""The inference worker: claims jobs, runs them in an engine process, journals the tokens. Knows no Celery."""
