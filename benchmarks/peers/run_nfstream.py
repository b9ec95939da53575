"""NFStream, its C engine as bare as it gets: one meter, no application guessed, no statistics of the flow.

    python run_nfstream.py CAPTURE

Prints JSON: `packets` that its flows counted, `live`: flows.
"""

from __future__ import annotations

import json
import sys

from nfstream import NFStreamer

if __name__ == "__main__":  # its meters are processes that may import this file again
    packets = flows = 0
    for flow in NFStreamer(source=sys.argv[1], n_meters=1, n_dissections=0, statistical_analysis=False):
        packets += flow.bidirectional_packets
        flows += 1
    print(json.dumps({"packets": packets, "live": flows}))
