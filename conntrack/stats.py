"""The counters of `conntrack -S` and /proc/net/stat/nf_conntrack, and the engine's own beside them.

The kernel keeps one set per CPU; an engine is one CPU.  `new`, `ignore` and `delete` of the /proc file have
been 0 since 4.x and are printed so.  Sources: nf_conntrack_standalone.c (ct_cpu_seq_show), conntrack.c.
"""

from __future__ import annotations

KERNEL = (
    "found",
    "invalid",
    "insert",
    "insert_failed",
    "drop",
    "early_drop",
    "error",
    "search_restart",
    "clash_resolve",
    "chaintoolong",
)
EXPECT = ("expect_new", "expect_create", "expect_delete")
_OWN = ("packets", "fast", "left_to_card", "unverified", "time_backwards")


class Stats:
    """Counts since the engine began.

    The first ten are the kernel's.  `packets`: given to `process`; `fast`: of these, how many
    took the fast path; `left_to_card`: L4 checksums that held only
    the pseudo-header's sum; `unverified`: checksums nobody could verify because the capture cut the packet;
    `staged`: packets that did not, `taken` those that did, at [protocol << 4 | ctinfo << 1 | rewritten];
    `time_backwards`: packets whose time ran backwards and was clamped.
    """

    __slots__ = (
        "chaintoolong",
        "clash_resolve",
        "drop",
        "early_drop",
        "error",
        "expect_create",
        "expect_delete",
        "expect_new",
        "found",
        "insert",
        "insert_failed",
        "invalid",
        "left_to_card",
        "search_restart",
        "staged",
        "taken",
        "time_backwards",
        "unverified",
    )

    def __init__(self) -> None:
        self.found = 0
        self.invalid = 0
        self.insert = 0
        self.insert_failed = 0
        self.drop = 0
        self.early_drop = 0
        self.error = 0
        self.search_restart = 0
        self.clash_resolve = 0
        self.chaintoolong = 0
        self.expect_new = 0
        self.expect_create = 0
        self.expect_delete = 0
        self.staged = 0
        self.taken = [0] * 4096
        self.left_to_card = 0
        self.unverified = 0
        self.time_backwards = 0

    @property
    def fast(self) -> int:
        """Packets that took the fast path."""
        return sum(self.taken)

    @property
    def packets(self) -> int:
        """Packets given to `process`."""
        return self.staged + sum(self.taken)

    def save(self) -> tuple[int, ...]:
        """All counters (for the trial journal)."""
        return tuple(getattr(self, name) for name in _SAVED)

    def restore(self, saved: tuple[int, ...]) -> None:
        """Back to `saved`."""
        for name, value in zip(_SAVED, saved, strict=True):
            setattr(self, name, value)

    def merge(self, other: Stats) -> None:
        """Count what `other` counted too."""
        for name in _SAVED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for place, count in enumerate(other.taken):
            self.taken[place] += count

    def as_dict(self) -> dict[str, int]:
        """The kernel's counters in `conntrack -S` order, then the engine's own."""
        return {name: getattr(self, name) for name in KERNEL + _OWN}

    def kernel(self) -> tuple[int, ...]:
        """The kernel's counters: `KERNEL`, then `EXPECT`."""
        return tuple([getattr(self, name) for name in KERNEL + EXPECT])

    def text(self) -> str:
        """The line of `conntrack -S`, trailing blank included."""
        return "cpu=0   \t" + "".join(f"{name}={getattr(self, name)} " for name in KERNEL)

    def proc_text(self, entries: int) -> str:
        """/proc/net/stat/nf_conntrack for a table of `entries` connections."""
        header = (
            "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop "
            "early_drop icmp_error  expect_new expect_create expect_delete search_restart\n"
        )
        row = (
            f"{entries:08x}  {self.clash_resolve:08x} {self.found:08x} {0:08x} {self.invalid:08x} {0:08x} {0:08x} "
            f"{self.chaintoolong:08x} {self.insert:08x} {self.insert_failed:08x} {self.drop:08x} "
            f"{self.early_drop:08x} {self.error:08x}  {self.expect_new:08x} {self.expect_create:08x} "
            f"{self.expect_delete:08x} {self.search_restart:08x}\n"
        )
        return header + row


_SAVED = tuple(name for name in Stats.__slots__ if name != "taken")  # no packet of a trial takes the fast path
