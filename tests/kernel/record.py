"""Record the fixed scenarios on the running kernel: `python tests/kernel/record.py [WORD…]`.

One rule: what is written is the kernel's answer and nothing of ours; a transcript is replaced only by another run.

Transcripts are one file a theme in `transcripts/`, one scenario a line.  WORDs choose themes; none chooses all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import cases  # noqa: E402
import machine  # noqa: E402
from scenario import record  # noqa: E402

FOLDER = Path(__file__).parent / "transcripts"


def main(words: list[str]) -> int:
    """See the module."""
    FOLDER.mkdir(exist_ok=True)
    with machine.small_table():
        for theme, scenarios in cases.by_theme().items():
            if words and theme not in words:
                continue
            lines = [json.dumps(record(scenario), separators=(",", ":")) for scenario in scenarios]
            (FOLDER / f"{theme}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
            print(theme, len(lines), sum(map(len, lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
