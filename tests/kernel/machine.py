"""The two conntrack settings that belong to the whole machine: bucket count and table size.

One rule: whoever changes them holds the lock and puts them back.

With the usual 262,144 buckets a dump of the table walks all of them (some 15 ms); with few, each step of a
comparison can look at the whole table.  Fewer than some thousands would bring a difference that nobody can
foretell: where a zone counts in one direction only, a translation finds a tuple of another zone taken if both are
in one bucket [nf_conntrack_tuple_taken].  The size limit is one number for all namespaces, though it counts each by
itself; scenarios about a full table share one small limit, and 512 buckets, the fewest there can be.

Source: Documentation/networking/nf_conntrack-sysctl.rst; writable in the first namespace only.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from typing import TextIO

from namespace import write_sysctl

BUCKETS = 4096
FEWEST_BUCKETS = 512
SMALL_MAX = 40  # the limit of scenarios about a full table: below 100, where the gc's early-drop mode does nothing
_USERS, _VALUES = "/run/conntrack-kernel-tests.lock", "/run/conntrack-kernel-tests.values"
_BUCKETS, _MAX = "net.netfilter.nf_conntrack_buckets", "net.netfilter.nf_conntrack_max"


def _read(name: str) -> str:
    with open("/proc/sys/" + name.replace(".", "/")) as file:
        return file.read().strip()


@contextlib.contextmanager
def small_table(limit: int | None = None) -> Iterator[None]:
    """Few buckets for a while, together with others who want the same; with `limit` as nf_conntrack_max, alone."""
    with open(_USERS, "w") as users:
        fcntl.flock(users, fcntl.LOCK_SH if limit is None else fcntl.LOCK_EX)
        with _usual() as usual:
            values = usual.read().split() or [_read(_BUCKETS), _read(_MAX)]
            usual.truncate(0)
            usual.write(" ".join(values))
            write_sysctl(_BUCKETS, BUCKETS if limit is None else FEWEST_BUCKETS)
            if limit is not None:
                write_sysctl(_MAX, limit)
        try:
            yield
        finally:
            with _usual() as usual, contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused where others are still at it
                write_sysctl(_BUCKETS, values[0])
                write_sysctl(_MAX, values[1])
                usual.truncate(0)


@contextlib.contextmanager
def _usual() -> Iterator[TextIO]:
    """The file that keeps the usual values from the first user to the last, for one process at a time."""
    with open(_VALUES, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file
