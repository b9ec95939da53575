"""Kernel tests of rules use the namespace of the differential suite."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "kernel"))
