"""Serves HTTP and nothing else: routes, the one road out, errors, health. Knows no engine, no worker and no torch."""
