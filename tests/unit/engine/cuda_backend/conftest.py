"""Triton's interpreter for these tests too: tests/unit/kernels/gpu/conftest.py says why it is set before any import."""

import os
import sys

if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("triton was imported before its interpreter could be switched on; run these tests by themselves")
os.environ["TRITON_INTERPRET"] = "1"
