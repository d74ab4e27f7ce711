"""Plain torch versions of every operation: the truth that faster kernels are compared with."""
