"""Triton versions of the operations, for NVIDIA GPUs; the only place that imports triton."""
