"""Fused operations for CPUs, compiled by numba: what runs where there is no GPU."""

from kernels.cpu.compiling import keep_by_default

keep_by_default()
