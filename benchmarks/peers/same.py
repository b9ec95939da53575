"""How many frames of one capture are in another, octet for octet, whatever their order and time.

    python benchmarks/peers/same.py A B [MORE…]         prints the share of A's frames found in each

One rule: a frame counts once; what occurs twice in A must be twice in B.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from hashlib import blake2b
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from traffic import read  # noqa: E402


def prints(path: str) -> Counter[bytes]:
    """A short hash of each frame."""
    return Counter(blake2b(frame, digest_size=8).digest() for _, frame, _ in read(path))


def main() -> int:
    """Compare, print JSON: path to share."""
    first = prints(sys.argv[1])
    total = first.total() or 1
    print(json.dumps({path: (first & prints(path)).total() / total for path in sys.argv[2:]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
