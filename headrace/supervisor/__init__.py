"""Processes under one roof: the embedded Redis, and whatever else `headrace up` keeps alive. Knows no jobs."""
