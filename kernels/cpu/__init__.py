"""Compiled by numba: the sampler for any CPU, and the fused step for those with AVX-512 VNNI."""

from kernels.cpu.compiling import keep_by_default

keep_by_default()
