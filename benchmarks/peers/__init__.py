"""One file for each engine that ours is measured against: how it is installed, what it is given, and its runner.

A runner is the same file run in the engine's own environment: it imports nothing but the standard library, the engine
and `serving`. The driver's side is `peer`, `environments` and `process`.
"""
