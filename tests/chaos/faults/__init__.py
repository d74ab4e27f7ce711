"""Trouble between the parts of a fleet and its Redis, and what the fleet is to make of it."""
