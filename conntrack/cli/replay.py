"""`pyconntrack replay`: wire a reader, an engine, a vantage point and the outputs together, and sum up.

What is asked for by name (--list, --events, --stats, a stream to "-") goes to standard output alone; the summary
then goes to standard error, where the progress bar and every notice are anyway.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from ..conn import Conn, decimal_time
from ..drivers import workers
from ..drivers.capture import CaptureError, create_capture, open_capture
from ..drivers.replay import Replay, ReplayResult, Step, Tally, guess_view, json_line
from ..drivers.vantage import GATEWAY, INSIDE, Vantage
from ..engine import Engine
from ..nat.rules import Masquerade, NatRule, Netmap, Snat
from ..reasons import NOT_IP, REASONS

_PROGRESS_FROM = 2_000_000  # octets: below this a bar would only flicker
_PROGRESS_EVERY = 1_000_000  # octets


@dataclass(frozen=True, slots=True)
class Order:
    """What one replay was asked to do; see the options of `replay`."""

    capture: str
    nat: tuple[NatRule, ...]
    wants_nat: bool
    inside: tuple[str, ...]
    view: str
    sysctl: dict[str, int | str]
    write: str | None
    listing: bool
    events: bool
    stats: bool
    flows: str | None
    packets: str | None
    seed: int
    workers: int

    @property
    def text_asked(self) -> bool:
        """Is standard output taken?"""
        streams = (self.write, self.flows, self.packets)
        return self.listing or self.events or self.stats or "-" in streams


def run_replay(order: Order, usage_error: Callable[[str], Exception]) -> int:
    """Do it; the exit status.  `usage_error` makes the exception for what the engine or several workers refuse."""
    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        if order.workers > 1:
            _check_workers(order)
        engine = Engine(nat=list(order.nat) if order.wants_nat else None, sysctl=order.sysctl, seed=order.seed)
    except ValueError as error:
        raise usage_error(str(error)) from None
    view = _view(order, notes)
    with ExitStack() as stack:
        if order.workers == 1:
            done = _run_alone(order, engine, view, stack)
        else:
            try:
                done = _share_out(order, view, stack)
            except CaptureError:
                raise
            except ValueError as error:
                raise usage_error(str(error)) from None
        if order.stats:
            print(done.stats.text())
        sys.stdout.flush()
        summary = notes if order.text_asked else Console(soft_wrap=True, highlight=False)
        _summary(summary, order, done)
        if done.problem:
            notes.print(f"pyconntrack: {order.capture}: {done.problem}", style="red", markup=False)
            return 1
    return 0


def _run_alone(order: Order, engine: Engine, view: str, stack: ExitStack) -> ReplayResult:
    """In this process."""
    tally = Tally()
    reader = stack.enter_context(open_capture(order.capture))
    writer = stack.enter_context(create_capture(order.write, like=reader)) if order.write else None
    vantage = Vantage(engine, view, order.inside)
    replay = Replay(reader, engine, vantage, writer)
    flows = _lines(stack, order.flows)
    packets = _lines(stack, order.packets)
    engine.on_end = _stamp(tally, flows)
    progress = _progress(order.capture, stack)
    if order.events or packets is not None:
        # a listener from the start, as `conntrack -E` beside a capture would be
        events = engine.events if order.events else ()
        for step in replay.steps():
            tally.add(step)
            if packets is not None:
                packets(_packet_record(step))
            for event in events:
                print(event.text(timestamp=True))
            if progress is not None:
                progress(len(step.frame.data) + 16)
    else:
        replay.run(tally.add, progress)
    engine.reap()
    tally.finish(engine)
    if flows is not None:
        for conn in engine.conns():
            flows(conn.to_dict())
    if order.listing:
        text = engine.listing()
        if text:
            print(text)
    counts = replay.frames, replay.written, replay.short, replay.not_ip
    return ReplayResult(*counts, tally, engine.stats, vantage.seen, reader.problem)


def _check_workers(order: Order) -> None:
    """ValueError for what only one process can do."""
    if order.events or order.packets is not None:
        raise ValueError("--workers: --events and --packets tell of all packets in order, as only one process can")
    if order.capture == "-":
        raise ValueError("--workers: standard input is read once; give a file")


def _share_out(order: Order, view: str, stack: ExitStack) -> ReplayResult:
    """In several processes; ValueError for what only one can do."""
    if view != GATEWAY:
        raise ValueError(f"--workers: needs a capture that shows both sides (--view gateway), not {view}")
    sys.stdout.flush()
    flows: IO[bytes] | None = None
    if order.flows is not None:
        standard = order.flows == "-"
        flows = sys.stdout.buffer if standard else stack.enter_context(Path(order.flows).open("wb"))  # noqa: SIM115
    return workers.replay(
        order.capture,
        order.write,
        workers=order.workers,
        inside=order.inside,
        nat=order.nat if order.wants_nat else None,
        sysctl=order.sysctl,
        seed=order.seed,
        flows=flows,
        listing=sys.stdout.buffer if order.listing else None,
        progress=_progress(order.capture, stack),
    )


def _view(order: Order, notes: Console) -> str:
    """The view asked for, or the one that fits the NAT and the capture; says which, and why."""
    if order.view != "auto" or not order.wants_nat:
        return GATEWAY if order.view == "auto" else order.view
    public = _public_addresses(order.nat)
    source_nat = any(isinstance(rule, Snat | Masquerade) or _maps_source(rule) for rule in order.nat)
    if not source_nat:
        notes.print("view: gateway (no source NAT asked for; --view outside for a capture from outside a DNAT)")
        return GATEWAY
    if order.capture == "-":
        notes.print("view: inside (standard input cannot be read twice to look; --view gateway otherwise)")
        return INSIDE
    view = guess_view(order.capture, public)
    why = "no packet is" if view == INSIDE else "packets are"
    notes.print(f"view: {view} ({why} addressed to the public address)")
    return view


def _maps_source(rule: NatRule) -> bool:
    return isinstance(rule, Netmap) and rule.source is not None


def _public_addresses(rules: tuple[NatRule, ...]) -> list[bytes]:
    texts: list[str] = []
    for rule in rules:
        if isinstance(rule, Snat):
            texts += rule.to.split("-")
        elif isinstance(rule, Masquerade):
            texts += [rule.to] if isinstance(rule.to, str) else list(rule.to)
    return [ip_address(text.strip()).packed for text in texts]


def _lines(stack: ExitStack, name: str | None) -> Callable[[dict[str, Any]], None] | None:
    """A function that writes one JSON line to `name` ("-": standard output); the first carries the version."""
    if name is None:
        return None
    file = sys.stdout
    if name != "-":
        file = stack.enter_context(Path(name).open("w", encoding="utf-8"))  # noqa: SIM115
    first = [True]

    def write(record: dict[str, Any]) -> None:
        if first:
            first.clear()
            record = {"v": 1, **record}
        file.write(json_line(record))

    return write


def _stamp(tally: Tally, flows: Callable[[dict[str, Any]], None] | None) -> Callable[[Conn], None]:
    def ended(conn: Conn) -> None:
        tally.ended += 1
        if flows is not None:
            flows(conn.to_dict())

    return ended


def _packet_record(step: Step) -> dict[str, Any]:
    if step.outcome is not None:
        return {"n": step.number, **step.outcome.to_dict(), "time": decimal_time(step.frame.time)}
    record = {"n": step.number, "time": decimal_time(step.frame.time), "length": step.frame.wire_length}
    return {
        **record,
        "verdict": "ACCEPT",
        "counted": False,
        "reason": NOT_IP,
        "detail": {"ethertype": step.ethertype},
        "rewritten": False,
    }


def _progress(name: str, stack: ExitStack) -> Callable[[int], None] | None:
    """What to tell of octets read, for a progress bar on standard error; None if that is no terminal, or the file
    is short.  Drawn when told, not by a thread: other processes may begin meanwhile."""
    size = os.path.getsize(name) if name != "-" and os.path.isfile(name) else 0
    console = Console(stderr=True)
    if not console.is_terminal or size < _PROGRESS_FROM:
        return None
    columns = (TextColumn("{task.completed:>12,.0f} octets"), BarColumn(), TimeRemainingColumn())
    progress = stack.enter_context(Progress(*columns, console=console, transient=True, auto_refresh=False))
    task = progress.add_task("replay", total=size)
    waiting = [0]

    def tell(octets: int) -> None:
        waiting[0] += octets
        if waiting[0] >= _PROGRESS_EVERY:
            progress.update(task, advance=waiting[0], refresh=True)
            waiting[0] = 0

    return tell


def _summary(console: Console, order: Order, done: ReplayResult) -> None:
    tally, seen, stats = done.tally, done.seen, done.stats
    live = tally.state.total()
    console.print(
        f"{order.capture}: {done.frames} packets, {live + tally.ended} connections "
        f"({live} live, {tally.ended} ended)   [acct and timestamp are on]",
        markup=False,
    )
    grid = RichTable.grid(padding=(0, 3))
    grid.add_row(
        _counts("protocol", dict(tally.proto)),
        _counts("verdict", dict(tally.verdict)),
        _counts("ctinfo", dict(tally.ctinfo)),
        _counts("live state", {f"{proto} {state}": n for (proto, state), n in tally.state.items()}),
    )
    console.print(grid)
    if tally.reason:
        table = RichTable("reason", "packets", "meaning", box=None, pad_edge=False, title_justify="left")
        table.columns[1].justify = "right"
        for name, count in tally.reason.most_common():
            table.add_row(name, str(count), REASONS[name].sentence)
        console.print(table)
    for ethertype, count in sorted(done.not_ip.items()):
        console.print(f"not IP: ethertype 0x{ethertype:04x}, {count} frames, passed unchanged")
    if done.short:
        console.print(f"not IP: {done.short} frames too short for their link header, passed unchanged")
    if order.wants_nat:
        console.print(f"translated: {tally.rewritten} packets")
    if seen.readdressed or seen.unsolicited:
        console.print(
            f"answers re-addressed: {seen.readdressed} (after translation equal to the capture: {seen.restored}, "
            f"different: {seen.differing}); unsolicited: {seen.unsolicited}"
        )
    if stats.left_to_card:
        console.print(f"checksums left to the network card: {stats.left_to_card}")
    if stats.unverified:
        console.print(f"checksums that could not be verified (cut packets): {stats.unverified}")
    if stats.time_backwards:
        console.print(f"times that ran backwards and were clamped: {stats.time_backwards}")
    if order.write:
        console.print(f"written: {done.written} frames to {order.write}", markup=False)


def _counts(title: str, counts: dict[str, int]) -> RichTable:
    table = RichTable(title, "n", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(name, str(count))
    return table
