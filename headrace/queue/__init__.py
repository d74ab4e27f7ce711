"""Scheduling truth: who may work on which job, and what has been written. Knows no text and no engine."""
