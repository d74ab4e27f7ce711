"""Model files in: what a file says of itself (`describe`); weights are read by engine/loaders/weights.py."""

from engine.loaders.description import ModelDescription, describe

__all__ = ["ModelDescription", "describe"]
