"""The parts that models are built of; each comes in an exact and a plain version of one shape."""
