"""The box around the engine: hooks, tables and chains, interfaces and routes.

    skb.py      a packet inside the box            rules/     iptables-restore text, chains, the registry
    box.py      what rules may ask of it           matches/   one file a match
    routing.py  interfaces, addresses, routes      targets/   one file a target
    host.py     the way of a packet through the five hooks

Matches and targets are siblings of one contract (`box`); a further one is a further file.
"""

from .host import Host

__all__ = ["Host"]
