"""Makes what lies beside this file (`packets`, `script`, `draws`, `model`) importable from every folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
