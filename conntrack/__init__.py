"""Linux connection tracking and NAT as a pure-Python, sans-I/O library.

>>> from conntrack import Engine, Masquerade
>>> engine = Engine(nat=[Masquerade("203.0.113.5", source="10.0.0.0/8")], seed=7)
>>> query = bytes.fromhex("4500001c000100004011aecd0a000002c000020104d2003500082ed4")
>>> outcome = engine.process(query, now=0.0)
>>> outcome.verdict, outcome.ctinfo, outcome.packet[12:16].hex()
('ACCEPT', 'NEW', 'cb007105')
"""

from .conn import Conn
from .engine import Engine
from .events import Event
from .nat.rules import Dnat, Masquerade, Netmap, Redirect, Snat
from .outcome import Outcome
from .tuples import Tuple

__version__ = "0.1.0"

__all__ = [
    "Conn",
    "Dnat",
    "Engine",
    "Event",
    "Masquerade",
    "Netmap",
    "Outcome",
    "Redirect",
    "Snat",
    "Tuple",
    "__version__",
]
