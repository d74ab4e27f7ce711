"""Triton's interpreter for every kernel test here: it proves logic on any machine, and says nothing about speed.

Triton decides at import which of its own functions are interpreted, so the variable stands before that, and stays: a
kernel module may be loaded by any later test. Nothing in this repository but `kernels.gpu` imports triton.
"""

import os
import sys

if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("triton was imported before its interpreter could be switched on; run these tests by themselves")
os.environ["TRITON_INTERPRET"] = "1"
