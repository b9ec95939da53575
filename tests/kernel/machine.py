"""The two conntrack settings that belong to the whole machine: bucket count and table size.

One rule: whoever changes them holds the lock and puts them back.

With the usual 262,144 buckets a dump of the table walks all of them (some 15 ms); with 512, the smallest number,
each step of a comparison can look at the whole table.  The size limit is one number for all namespaces, though it
counts each by itself; scenarios about a full table share one small limit.

Source: Documentation/networking/nf_conntrack-sysctl.rst; writable in the first namespace only.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from namespace import write_sysctl

BUCKETS = 512
SMALL_MAX = 40  # the limit of scenarios about a full table: below 100, where the gc's early-drop mode does nothing
_LOCK = "/run/conntrack-kernel-tests.lock"
_BUCKETS, _MAX = "net.netfilter.nf_conntrack_buckets", "net.netfilter.nf_conntrack_max"


def _read(name: str) -> str:
    with open("/proc/sys/" + name.replace(".", "/")) as file:
        return file.read().strip()


@contextlib.contextmanager
def small_table(limit: int | None = None) -> Iterator[None]:
    """512 buckets, and `limit` as nf_conntrack_max if given, for a while.  Waits for others who want the same."""
    with open(_LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = {name: _read(name) for name in (_BUCKETS, _MAX)}
        try:
            write_sysctl(_BUCKETS, BUCKETS)
            if limit is not None:
                write_sysctl(_MAX, limit)
            yield
        finally:
            for name, value in before.items():
                write_sysctl(name, value)
