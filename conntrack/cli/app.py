"""The commands, declared with typer; each hands its options on as values and does nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from .. import __version__
from ..drivers.capture import CaptureError
from ..drivers.workers import MOST_WORKERS
from ..nat.rules import Dnat, NatRule, Netmap, Redirect, Snat
from ..report.diagram import PROTOCOLS, diagram_text
from .options import PRIVATE, masquerades, parse_rule, parse_sysctls, with_inside
from .replay import Order, run_replay

app = typer.Typer(
    name="pyconntrack",
    help="Linux connection tracking and NAT for captures: exactly the kernel's verdicts, table and bytes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Value = TypeVar("Value")


class View(StrEnum):
    """Where the capture was taken (see drivers/vantage.py)."""

    auto = "auto"
    gateway = "gateway"
    inside = "inside"
    outside = "outside"


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"conntrack-engine {__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def replay(
    capture: Annotated[Path, typer.Argument(help="pcap or pcapng file, gzip or not; - is standard input.")],
    masquerade: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDR", help="Masquerade what leaves the inside as ADDR; once per family."),
    ] = None,
    inside: Annotated[
        list[str] | None,
        typer.Option(metavar="NET", help=f"A network inside; may be repeated. Default: {', '.join(PRIVATE)}."),
    ] = None,
    snat: Annotated[list[str] | None, typer.Option(metavar="RULE", help="Source NAT: TO[,name=value…].")] = None,
    dnat: Annotated[list[str] | None, typer.Option(metavar="RULE", help="Destination NAT, likewise.")] = None,
    redirect: Annotated[list[str] | None, typer.Option(metavar="RULE", help="Redirect to ports.")] = None,
    netmap: Annotated[list[str] | None, typer.Option(metavar="RULE", help="Map a network onto another.")] = None,
    view: Annotated[View, typer.Option(help="Side of the NAT on which the capture was taken.")] = View.auto,
    sysctl: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Set a sysctl; may be repeated.")
    ] = None,
    write: Annotated[
        str | None, typer.Option("--write", "-w", metavar="OUT", help="Write the translated capture; - is stdout.")
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="Print the table at the end as `conntrack -L` does.")
    ] = False,
    events: Annotated[bool, typer.Option(help="Print events as `conntrack -E -o timestamp` does.")] = False,
    stats: Annotated[bool, typer.Option(help="Print the counters as `conntrack -S` does.")] = False,
    flows: Annotated[
        str | None, typer.Option(metavar="FILE", help="JSON lines: every connection that ever lived.")
    ] = None,
    packets: Annotated[str | None, typer.Option(metavar="FILE", help="JSON lines: every packet and why.")] = None,
    seed: Annotated[int, typer.Option(help="Of every choice the kernel would draw.")] = 0,
    workers: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=MOST_WORKERS,
            help="Processes that share the work, each the packets of its remote addresses (docs/workers.md). "
            "For a file of classic pcap, Ethernet, --view gateway, without --events and --packets.",
        ),
    ] = 1,
    no_checksum: Annotated[bool, typer.Option("--no-checksum", help="Do not verify transport checksums.")] = False,
) -> None:
    """Track (and translate) a capture; print a summary, or what is asked for.

    Accounting and timestamping (nf_conntrack_acct, nf_conntrack_timestamp) are on here, unlike in Linux.
    """
    networks = inside if inside else list(PRIVATE)
    rules: list[NatRule] = []
    for kind, texts in ((Dnat, dnat), (Redirect, redirect), (Netmap, netmap), (Snat, snat)):
        for text in texts or ():
            rules.append(_usage(lambda kind=kind, text=text: with_inside(parse_rule(kind, text), networks)))  # type: ignore[misc]
    rules += _usage(lambda: masquerades(masquerade or (), networks))
    settings: dict[str, int | str] = {"nf_conntrack_acct": 1, "nf_conntrack_timestamp": 1}
    settings |= _usage(lambda: parse_sysctls(sysctl or ()))
    if no_checksum:
        settings["nf_conntrack_checksum"] = 0
    outputs = [name for name in (write, flows, packets) if name == "-"]
    if len(outputs) > 1:
        raise typer.BadParameter("only one of -w, --flows and --packets can be standard output")
    order = Order(
        capture=str(capture),
        nat=tuple(rules),
        wants_nat=bool(rules or masquerade or snat or dnat or redirect or netmap),
        inside=tuple(networks),
        view=view.value,
        sysctl=settings,
        write=write,
        listing=listing,
        events=events,
        stats=stats,
        flows=flows,
        packets=packets,
        seed=seed,
        workers=workers,
    )
    raise typer.Exit(_running(lambda: run_replay(order, typer.BadParameter)))


@app.command()
def diagram(
    protocol: Annotated[str, typer.Argument(help=f"One of: {', '.join(PROTOCOLS)}.")],
) -> None:
    """Print a protocol's state diagram (Mermaid), generated from the grid that the tracker uses."""
    typer.echo(_usage(lambda: diagram_text(protocol)))


def _usage(make: Callable[[], Value]) -> Value:
    """A value from option text; a ValueError is wrong usage."""
    try:
        return make()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def run(argv: list[str]) -> int:
    """The command line `argv`; the exit status."""
    try:
        app(argv, prog_name="pyconntrack")
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 1
    return 0


def _running(work: Callable[[], int]) -> int:
    """`work`'s exit status; what fails while running is one clear line and status 1."""
    try:
        return work()
    except BrokenPipeError:
        sys.stderr.write("pyconntrack: standard output was closed\n")
        _silence_stdout()
    except (OSError, CaptureError) as error:
        sys.stderr.write(f"pyconntrack: {error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("pyconntrack: interrupted\n")
    return 1


def _silence_stdout() -> None:
    """The interpreter flushes standard output once more at exit; let that go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
