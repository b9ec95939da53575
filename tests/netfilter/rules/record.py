"""Writes down what the tool and the kernel do, so that the same comparison runs where there is no root.

    cd tests && sudo python -m netfilter.rules.record

tool.json   texts (by hand, then random ones) and what iptables-save prints behind them, null if they were refused
walk.json   rules, packets, and the counters of the kernel behind these packets

Made with iptables 1.8.9 (nf_tables) and Linux 6.18.44.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random

sys.path.append(str(Path(__file__).parents[2] / "kernel"))
sys.path.append(str(Path(__file__).parents[2]))
sys.path.append(str(Path(__file__).parents[1]))

HERE = Path(__file__).parent
RANDOM_LINES, RANDOM_SESSIONS, WALKS, PACKETS = 250, 60, 6, 60


def main() -> None:
    """Record everything anew."""
    from namespace import new_namespace

    from rules.kernel_rules import Kernel
    from rules.lines import random_session, random_text
    from rules.packets_at_random import random_packet
    from rules.said_lines import CORNERS
    from rules.test_tool_differential import theirs
    from rules.test_walk_differential import random_rules

    texts = [(4, f"*{table}\n{lines}\nCOMMIT\n") for table, lines in CORNERS]
    for seed in range(RANDOM_LINES):
        random = Random(f"line {seed}")
        family = random.choice((4, 6))
        texts.append((family, random_text(random, family)))
    texts += [(4, random_session(Random(f"session {seed}"))) for seed in range(RANDOM_SESSIONS)]
    with new_namespace() as namespace:
        rows = [[family, text, theirs(namespace, text, family)[0]] for family, text in texts]
    (HERE / "tool.json").write_text(
        "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"
    )

    kernel = Kernel()
    walks = []
    for seed in range(WALKS):
        random = Random(f"walk {seed}")
        family = (4, 6)[seed % 2]
        text = random_rules(random, family)
        packets = [random_packet(random, family) for _ in range(PACKETS)]
        kernel.load(text, family)
        for packet in packets:
            kernel.send(packet)
        walks.append(
            {"family": family, "rules": text, "packets": [p.hex() for p in packets], "saved": kernel.saved(family)}
        )
    kernel.close()
    (HERE / "walk.json").write_text("[\n" + ",\n".join(json.dumps(walk) for walk in walks) + "\n]\n")


if __name__ == "__main__":
    main()
