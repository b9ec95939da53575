"""The command line: `pyconntrack`, or `python -m conntrack`.

    replay    a capture through the engine: summary, listing, events, records, translated capture
    diagram   a protocol's state machine as a Mermaid diagram, generated from its grid

Exit status: 0; 1 for a failure while running, with one line that says what; 2 for wrong usage.  Only this folder
knows typer and rich; `import conntrack` loads neither.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the script and of `python -m conntrack`."""
    from .app import run

    sys.exit(run(sys.argv[1:]))
