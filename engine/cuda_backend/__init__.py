"""For NVIDIA GPUs: fused kernels over static buffers, decode steps as graphs, tokens chosen on the device."""
