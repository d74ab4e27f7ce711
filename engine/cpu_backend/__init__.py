"""The fused backend for CPUs with AVX-512 VNNI: a step is one compiled function, without torch."""
