"""What every test's process begins with."""

from __future__ import annotations

import os

# Torch's threads wait by spinning: beside another test on the same core, two take five times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
