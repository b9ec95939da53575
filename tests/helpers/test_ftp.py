"""FTP: what is read, what is expected, what is dropped, and what translation makes of it.

The tables of lines are copied from Linux 6.18 (a control connection from 10.0.0.2 or fd00:1::2 to 93.184.216.34 or
2600::1, greeting and USER before the line); so are events, octets and listing texts below.
"""

from __future__ import annotations

import packets
import pytest
from draws import Draws
from packets import TCP, icmp_error, ip, tcp_options, wrong_sums

from conntrack import Dnat, Masquerade, Outcome
from conntrack.helpers import View
from conntrack.helpers.ftp import HELPER
from conntrack.verdict import ESTABLISHED, NEW

from .control import CLIENT, SERVER, Control, engine, numbers, payload

CLIENT6, SERVER6 = "fd00:1::2", "2600::1"
MASQUERADE = [Masquerade(["198.51.100.1", "2001:db8:2::1"], out_iface="out0")]

# fmt: off
# line                                                                  expected, "pass", or "drop" and the pattern
COMMANDS = [
    (b"PORT 10,0,0,2,19,137\r\n",                                       "10.0.0.2 5001"),
    (b"port 10,0,0,2,19,137\r\nNOOP\r\n",                               "10.0.0.2 5001"),
    (b"PORT  10,0,0,2,19,137\r\n",                                      "drop PORT"),
    (b"PORTS 10,0,0,2,19,137\r\n",                                      "10.0.0.2 5001"),
    (b"PORT 10,0,0,2,19,137\n",                                         "drop PORT"),
    (b"PORT 10,0,0,2,19,137",                                           "drop PORT"),
    (b"PORT 10,0,0,2,275,137\r\n",                                      "10.0.0.2 5001"),
    (b"PORT 010,0,0,002,19,00137\r\n",                                  "10.0.0.2 5001"),
    (b"PORT 9,256,0,2,19,137\r\n",                                      "pass"),
    (b"PORT 4294967306,0,0,2,19,137\r\n",                               "10.0.0.2 5001"),
    (b"PORT 10,,,2,19,137\r\n",                                         "10.0.0.2 5001"),
    (b"PORT 10,0,0,3,19,137\r\n",                                       "pass"),
    (b"PORT 10,0,0,2,0,0\r\n",                                          "10.0.0.2 0"),
    (b"PORT 10,0,0,2,19,137,1\r\n",                                     "drop PORT"),
    (b"PORT 10,0,2,19,137\r\n",                                         "drop PORT"),
    (b"PORT 10,0,0,2,19,-1\r\n",                                        "drop PORT"),
    (b"PORT\r\n",                                                       "drop PORT"),
    (b"PORT",                                                           "drop PORT"),
    (b"PO",                                                             "drop PORT"),
    (b"p",                                                              "drop PORT"),
    (b"XPORT 10,0,0,2,19,137\r\n",                                      "pass"),
    (b" PORT 10,0,0,2,19,137\r\n",                                      "pass"),
    (b"EPRT |1|10.0.0.2|5001|\r\n",                                     "10.0.0.2 5001"),
    (b"eprt |1|10.0.0.2|5001|",                                         "10.0.0.2 5001"),
    (b"EPRT |1|10.0.0.2|5001\r\n",                                      "drop EPRT"),
    (b"EPRT |2|10.0.0.2|5001|\r\n",                                     "drop EPRT"),
    (b"EPRT |2|fd00:1::2|5001|\r\n",                                    "drop EPRT"),
    (b"EPRT !1!10.0.0.2!5001!\r\n",                                     "10.0.0.2 5001"),
    (b"EPRT .1.10.0.0.2.5001.\r\n",                                     "drop EPRT"),
    (b"EPRT 11110.0.0.215001\r\n",                                      "drop EPRT"),
    (b"EPRT |1|10.0.0.2|0|\r\n",                                        "drop EPRT"),
    (b"EPRT |1|10.0.0.2|70537|\r\n",                                    "10.0.0.2 5001"),
    (b"EPRT |1|266.0.0.2|5001|\r\n",                                    "10.0.0.2 5001"),
    (b"EPRT |1|10.0.0|5001|\r\n",                                       "drop EPRT"),
    (b"EPRT |1|10.0.0.2|50 01|\r\n",                                    "drop EPRT"),
    (b"EPRT |1|",                                                       "drop EPRT"),
    (b"EPRT ||",                                                        "drop EPRT"),
    (b"E",                                                              "drop EPRT"),
    (b"EPSV\r\n",                                                       "pass"),
]
REPLIES = [
    (b"227 Entering Passive Mode (93,184,216,34,19,137)\r\n",           "93.184.216.34 5001"),
    (b"227 =93,184,216,34,19,137 ok\r\n",                               "93.184.216.34 5001"),
    (b"22793,184,216,34,19,137.\r\n",                                   "pass"),
    (b"227 93,184,216,34,19,137",                                       "drop 227 "),
    (b"227 93,184,216,34,19,137\n",                                     "93.184.216.34 5001"),
    (b"227 (93,184,216,34,19,)\r\n",                                    "93.184.216.34 4864"),
    (b"227 Mode 1 (93,184,216,34,19,137)\r\n",                          "drop 227 "),
    (b"227 no numbers\r\n",                                             "drop 227 "),
    (b"227 (93,184,216,35,19,137)\r\n",                                 "pass"),
    (b"227\r\n",                                                        "pass"),
    (b"227",                                                            "drop 227 "),
    (b"22",                                                             "drop 227 "),
    (b"2",                                                              "drop 227 "),
    (b"226 done\r\n",                                                   "pass"),
    (b"229 Entering Extended Passive Mode (|||5001|)\r\n",              "93.184.216.34 5001"),
    (b"229 (|||5001|",                                                  "93.184.216.34 5001"),
    (b"229 |||5001|\r\n",                                               "drop 229 "),
    (b"229 (||5001|)\r\n",                                              "drop 229 "),
    (b"229 (|||0|)\r\n",                                                "drop 229 "),
    (b"229 (!!!5001!)\r\n",                                             "93.184.216.34 5001"),
    (b"229 (|||5001)\r\n",                                              "drop 229 "),
    (b"229 (",                                                          "drop 229 "),
    (b"229 \r\n",                                                       "drop 229 "),
]
COMMANDS6 = [
    (b"EPRT |2|fd00:1::2|5001|\r\n",                                    "fd00:1::2 5001"),
    (b"EPRT |2|FD00:1::2|5001|\r\n",                                    "fd00:1::2 5001"),
    (b"EPRT |2|fd00:0001:0000:0000:0000:0000:0000:0002|5001|\r\n",      "fd00:1::2 5001"),
    (b"EPRT |2|fd00:1:0:0:0:0:0:2|5001|\r\n",                           "fd00:1::2 5001"),
    (b"EPRT |2|fd00:1::0.0.0.2|5001|\r\n",                              "fd00:1::2 5001"),
    (b"EPRT |2|fd00:1:0:0:0:0:0.0.0.2|5001|\r\n",                       "fd00:1::2 5001"),
    (b"EPRT |2|fd00:1::0:0.0.0.2|5001|\r\n",                            "fd00:1::2 5001"),
    (b"EPRT |2|fd00:1:::2|5001|\r\n",                                   "drop EPRT"),
    (b"EPRT |2|fd00::1::2|5001|\r\n",                                   "drop EPRT"),
    (b"EPRT |2|fd00:1:0:0:0:0:2|5001|\r\n",                             "drop EPRT"),
    (b"EPRT |2|fd00:1:0:0:0:0:0:0:2|5001|\r\n",                         "drop EPRT"),
    (b"EPRT |2|0000fd00:1::00002|5001|\r\n",                            "fd00:1::2 5001"),
    (b"EPRT |2|fd000:1::2|5001|\r\n",                                   "drop EPRT"),
    (b"EPRT |2|fd00:1::2:|5001|\r\n",                                   "drop EPRT"),
    (b"EPRT |2|:fd00:1::2|5001|\r\n",                                   "drop EPRT"),
    (b"EPRT |2|fd00:1::2%1|5001|\r\n",                                  "drop EPRT"),
    (b"EPRT |2|fd00:1::3|5001|\r\n",                                    "pass"),
    (b"EPRT |2||5001|\r\n",                                             "drop EPRT"),
    (b"EPRT |2|::|5001|\r\n",                                           "pass"),
    (b"EPRT |2|fd00:1:0:0:0:0:0::2|5001|\r\n",                          "drop EPRT"),
    (b"EPRT |2|fd00:1:0:0:0:0::2|5001|\r\n",                            "fd00:1::2 5001"),
    (b"EPRT |2|fd00:1::0.0.0.256|5001|\r\n",                            "drop EPRT"),
    (b"EPRT |2|fd00:1::0.0.2|5001|\r\n",                                "drop EPRT"),
    (b"EPRT |1|10.0.0.2|5001|\r\n",                                     "drop EPRT"),
    (b"EPRT a2afd00:1::2a5001a\r\n",                                    "fd00:1::2 5001"),
    (b"EPRT :2:fd00:1::2:5001:\r\n",                                    "drop EPRT"),
    (b"PORT 253,0,0,1,19,137\r\n",                                      "fd00:1::2 5001"),
    (b"PORT 10,0,0,2,19,137\r\n",                                       "pass"),
]
REPLIES6 = [
    (b"229 Ok (|||5001|)\r\n",                                          "2600::1 5001"),
    (b"227 (38,0,0,0,19,137)\r\n",                                      "2600::1 5001"),
    (b"227 (10,0,0,2,19,137)\r\n",                                      "pass"),
]
# fmt: on


def told(control: Control, outcome: Outcome) -> str:
    """A step in the tables' words."""
    if outcome.verdict == "DROP":
        assert outcome.reason == "helper_partial"
        assert (
            outcome.log_text(0) == f"nf_ct_ftp: dropping packet: partial matching of `{outcome.detail['pattern']}'"
        )
        return f"drop {outcome.detail['pattern']}"
    return (control.expected() or ["pass"])[0]


@pytest.mark.parametrize(("line", "kernel"), COMMANDS, ids=[repr(line) for line, _ in COMMANDS])
def test_a_command_is_read_as_the_kernel_reads_it(line: bytes, kernel: str) -> None:
    control = Control()
    assert told(control, control.c(line)) == kernel


@pytest.mark.parametrize(("line", "kernel"), REPLIES, ids=[repr(line) for line, _ in REPLIES])
def test_a_reply_is_read_as_the_kernel_reads_it(line: bytes, kernel: str) -> None:
    control = Control()
    assert told(control, control.s(line)) == kernel


@pytest.mark.parametrize(("line", "kernel"), COMMANDS6, ids=[repr(line) for line, _ in COMMANDS6])
def test_an_ipv6_command_is_read_as_the_kernel_reads_it(line: bytes, kernel: str) -> None:
    control = Control(client=CLIENT6, server=SERVER6)
    assert told(control, control.c(line)) == kernel


@pytest.mark.parametrize(("line", "kernel"), REPLIES6, ids=[repr(line) for line, _ in REPLIES6])
def test_an_ipv6_reply_is_read_as_the_kernel_reads_it(line: bytes, kernel: str) -> None:
    control = Control(client=CLIENT6, server=SERVER6)
    assert told(control, control.s(line)) == kernel


# ── lines ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_counts_only_behind_a_packet_that_ended_in_a_newline() -> None:
    control = Control()
    control.c(b"NOOP\r\nLIST")  # ends in the middle of a line
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    assert control.expected() == []
    control.c(b"PORT 10,0,0,2,19,138\r\n")
    assert control.expected() == ["10.0.0.2 5002"]


def test_two_line_ends_are_remembered_so_the_last_command_is_read_when_it_comes_again() -> None:
    control = Control()
    at = control.seq
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    control.events()
    control.c(b"PORT 10,0,0,2,19,137\r\n", seq=at)
    assert control.events() == ["EXP_DESTROY 5001", "EXP_NEW 5001"]  # its timer starts anew
    control.c(b"NOOP\r\n")
    control.c(b"PORT 10,0,0,2,19,139\r\n", seq=at)  # the older of the two is forgotten by now
    assert control.expected() == ["10.0.0.2 5001"]


def test_a_dropped_command_leaves_the_memory_alone() -> None:
    control = Control()
    at = control.seq
    assert control.c(b"PORT 10,0,0,2,19,137\n").verdict == "DROP"
    control.c(b"PORT 10,0,0,2,19,137\r\n", seq=at)
    assert control.expected() == ["10.0.0.2 5001"]


def test_nothing_is_read_before_both_sides_have_spoken() -> None:
    view = {"payload": b"PORT 10,0,0,2,19,137\r\n", "seq": 5, "direction": 0, "nat": False, "memory": ((5,), ())}
    key = bytes((10, 0, 0, 2, 93, 184, 216, 34, 7, 208, 0, 21))
    assert not HELPER.read(View(ctinfo=NEW, orig=key, reply=key, **view)).actions  # type: ignore[arg-type]
    assert HELPER.read(View(ctinfo=ESTABLISHED, orig=key, reply=key, **view)).actions  # type: ignore[arg-type]


# ── the data connection ─────────────────────────────────────────────────────────────────────────────


def test_the_data_connection_is_related_and_takes_the_expectation_with_it() -> None:
    control = Control()
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    (expectation,) = control.engine.expectations()
    assert expectation.text() == (
        "300 proto=6 src=93.184.216.34 dst=10.0.0.2 sport=0 dport=5001 mask-src=255.255.255.255 "
        "mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.0.0.2 master-dst=93.184.216.34 "
        "sport=2000 dport=21 class=0 helper=ftp"
    )
    control.events()
    outcome = control.connect(SERVER, CLIENT, 20, 5001)
    assert (outcome.ctinfo, outcome.direction) == ("RELATED", "original")
    destroyed, made = control.engine.events
    assert destroyed.text() == f"[DESTROY] {expectation.text()}"
    assert made.to_dict()["master"] == {"src": CLIENT, "dst": SERVER, "sport": 2000, "dport": 21}
    assert (made.type, made.to_dict()["status"]) == ("NEW", ["CONFIRMED", "EXPECTED"])
    assert "helper" not in made.to_dict()
    stats = control.engine.stats
    assert (stats.expect_create, stats.expect_new, stats.expect_delete) == (1, 1, 1)
    assert control.connect(SERVER, CLIENT, 20, 5001).ctinfo == "RELATED"  # again, before an answer
    assert control.connect(SERVER, CLIENT, 21, 5001).ctinfo == "NEW"


def test_somebody_else_at_the_port_is_not_expected() -> None:
    control = Control()
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    assert control.connect("93.184.216.99", CLIENT, 20, 5001).ctinfo == "NEW"
    assert control.expected() == ["10.0.0.2 5001"]


def test_a_first_packet_that_cannot_begin_anything_uses_the_expectation_up() -> None:
    control = Control()
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    control.events()
    outcome = control.connect(SERVER, CLIENT, 20, 5001, "SA")
    assert (outcome.ctinfo, outcome.reason) == ("INVALID", "tcp_invalid_new")
    assert control.events() == ["EXP_DESTROY 5001"]
    assert control.engine.stats.expect_new == 1


def test_the_mark_is_inherited_without_an_event() -> None:
    control = Control()
    (master,) = control.engine.conns()
    control.engine.set_mark(master, 7)
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    control.events()
    control.connect(SERVER, CLIENT, 20, 5001)
    made = list(control.engine.conns())[-1]
    assert made.to_dict()["mark"] == 7
    *_, event = control.engine.events
    assert "mark" not in event.to_dict()["bits"] and event.to_dict()["mark"] == 7


def test_a_second_announcement_replaces_the_first_as_the_class_holds_one() -> None:
    control = Control()
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    control.events()
    control.s(b"227 (93,184,216,34,19,138)\r\n")
    assert control.events() == ["EXP_DESTROY 5001", "EXP_NEW 5002"]


def test_another_connection_cannot_announce_the_same() -> None:
    box = engine()
    Control(box).c(b"PORT 10,0,0,2,19,137\r\n")
    outcome = Control(box, port=2001).c(b"PORT 10,0,0,2,19,137\r\n")
    assert (outcome.verdict, outcome.reason) == ("DROP", "helper_expect")
    assert outcome.log_text() == "nf_ct_ftp: dropping packet: cannot add expectation"


def test_the_end_of_the_master_ends_its_expectations_after_its_own_event() -> None:
    control = Control()
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    control.events()
    control.engine.flush()
    assert control.events() == ["DESTROY 21", "EXP_DESTROY 5001"]
    assert control.engine.stats.expect_delete == 1


def test_listings_show_the_helper() -> None:
    control = Control()
    (master,) = control.engine.conns()
    assert master.to_dict()["helper"] == "ftp"
    assert "HELPER" in master.to_dict()["status"]
    first = next(iter(control.engine.events)).to_dict()
    assert (first["helper"], first["bits"]) == ("ftp", ["new", "protoinfo", "helper"])


# ── translation ─────────────────────────────────────────────────────────────────────────────────────


def masqueraded(**more: object) -> Control:
    return Control(engine(nat=MASQUERADE, **more), public="198.51.100.1")


def test_port_says_the_public_address_and_what_follows_is_renumbered() -> None:
    """The example of a kernel run: 1008 is the command, +4 octets."""
    control = masqueraded()
    outcome = control.c(b"PORT 10,0,0,2,19,137\r\n")
    assert payload(outcome) == b"PORT 198,51,100,1,19,137\r\n"
    assert numbers(outcome) == (1008, 5008)  # the changed segment keeps its own number
    assert not wrong_sums(outcome.packet)
    assert control.expected() == ["198.51.100.1 5001"]
    back = control.s(b"200 ok\r\n")
    assert numbers(back) == (5008, 1030)
    assert numbers(control.c(b"NOOP\r\n")) == (1034, 5016)
    blocks = tcp_options(sack=[(1034, 1040), (1000, 1020)])
    sacked = control.s(b"", "A", options=blocks).packet
    assert sacked[40:60].hex() == "01010512000004060000040c000003e8000003f8"
    assert not wrong_sums(sacked)
    master = next(control.engine.conns()).to_dict()
    assert "SEQ_ADJUST" in master["status"]
    assert master["seqadj"] == {
        "orig": {"pos": 1008, "before": 0, "after": 4},
        "reply": {"pos": 0, "before": 0, "after": 0},
    }


def test_the_changed_segment_again_is_changed_again_and_shifts_nothing_more() -> None:
    control = masqueraded()
    first = control.c(b"PORT 10,0,0,2,19,137\r\n")
    again = control.c(b"PORT 10,0,0,2,19,137\r\n", seq=1008)
    assert again.packet == first.packet
    assert numbers(control.c(b"NOOP\r\n"))[0] == 1034


def test_a_second_change_adds_to_the_first() -> None:
    control = masqueraded()
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    outcome = control.c(b"PORT 10,0,0,2,19,138\r\n")
    assert numbers(outcome) == (1034, 5008)
    master = next(control.engine.conns()).to_dict()
    assert master["seqadj"]["orig"] == {"pos": 1030, "before": 4, "after": 8}


def test_eprt_is_written_with_bars_and_in_full() -> None:
    """%pI6: no zeros left out."""
    control = Control(engine(nat=MASQUERADE), client=CLIENT6, server=SERVER6, public="2001:db8:2::1")
    outcome = control.c(b"EPRT !2!fd00:1::2!5001!\r\n")
    assert payload(outcome) == b"EPRT |2|2001:0db8:0002:0000:0000:0000:0000:0001|5001|\r\n"
    assert not wrong_sums(outcome.packet)


def test_the_data_connection_follows_its_master_and_asks_no_rule() -> None:
    control = masqueraded()
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    outcome = control.connect(SERVER, "198.51.100.1", 20, 5001)
    assert packets.addresses(outcome.packet) == (SERVER, CLIENT)
    assert packets.ports(outcome.packet) == (20, 5001)
    made = list(control.engine.conns())[-1].to_dict()
    assert made["status"] == ["CONFIRMED", "DST_NAT", "DST_NAT_DONE", "EXPECTED", "SRC_NAT_DONE"]
    assert made["reply"] == {"src": CLIENT, "dst": SERVER, "sport": 5001, "dport": 20}


def test_a_passive_server_behind_the_box_is_announced_with_its_public_address() -> None:
    rules = [Dnat("10.0.0.2", destination="198.51.100.9")]
    control = Control(engine(nat=rules), client="93.184.216.34", server="198.51.100.9", inside="10.0.0.2")
    outcome = control.s(b"227 ok (10,0,0,2,19,137)\r\n")
    assert payload(outcome) == b"227 ok (198,51,100,9,19,137)\r\n"
    assert control.expected() == ["198.51.100.9 5001"]
    data = control.connect("93.184.216.34", "198.51.100.9", 3000, 5001)
    assert (data.ctinfo, packets.addresses(data.packet)) == ("RELATED", ("93.184.216.34", "10.0.0.2"))


def test_a_port_that_is_taken_is_drawn_anew_above_the_wanted_one() -> None:
    """Kernel: two clients that want 64000 get 64000 and, for example, 65438."""
    draws = Draws(expects=[0, 1438])
    box = engine(nat=MASQUERADE, choices=draws)
    Control(box, public="198.51.100.1").c(b"PORT 10,0,0,2,250,0\r\n")
    other = Control(box, client="10.0.0.3", public="198.51.100.1", port=2001)
    assert payload(other.c(b"PORT 10,0,0,3,250,0\r\n")) == b"PORT 198,51,100,1,255,158\r\n"
    assert draws.asked["expect"] == 2
    data = other.connect(SERVER, "198.51.100.1", 20, 65438)
    assert packets.ports(data.packet) == (20, 64000)


@pytest.mark.parametrize(("wanted", "tries"), [(65535, 0), (65533, 2), (1024, 128)])
def test_the_search_gives_up_after_128_ports_and_never_tries_65535(wanted: int, tries: int) -> None:
    draws = Draws(expects=[0] * 200)
    box = engine(nat=MASQUERADE, choices=draws)
    line = f"{wanted >> 8},{wanted & 255}\r\n".encode()
    Control(box, public="198.51.100.1").c(b"PORT 10,0,0,2," + line)
    other = Control(box, client="10.0.0.3", public="198.51.100.1", port=2001)
    outcome = other.c(b"PORT 10,0,0,3," + line)
    assert (outcome.verdict, outcome.reason) == ("DROP", "helper_ports")
    assert outcome.log_text() == "nf_ct_ftp: dropping packet: all ports in use"
    assert draws.asked["expect"] == tries


def test_port_0_is_expected_and_the_packet_dropped() -> None:
    control = masqueraded()
    assert control.c(b"PORT 10,0,0,2,0,0\r\n").reason == "helper_ports"
    assert control.expected() == ["198.51.100.1 0"]


def test_options_that_cannot_be_read_drop_a_renumbered_packet() -> None:
    control = masqueraded()
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    outcome = control.c(b"", "A", options=b"\x05\x20\x00\x00")
    assert (outcome.verdict, outcome.reason) == ("DROP", "seq_adjust")
    assert control.engine.stats.drop == 1


def test_the_client_s_own_error_is_taken_for_a_segment() -> None:
    """Octets 4 to 8 of the ICMP message count as a sequence number there, as on the kernel."""
    control = masqueraded()
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    about = control.s(b"200 ok\r\n").packet
    message = icmp_error(3, 4, about)
    message = message[:4] + (2000).to_bytes(4, "big") + message[8:]
    outcome = control.process(ip(CLIENT, SERVER, packets.ICMP, message), "in0")
    assert outcome.ctinfo == "RELATED"
    assert int.from_bytes(outcome.packet[24:28], "big") == 2004


def test_a_packet_too_long_to_grow_is_dropped_with_its_expectation() -> None:
    control = masqueraded()
    outcome = control.c(b"PORT 10,0,0,2,19,137\r\n" + b"x" * (65535 - 40 - 22))
    assert (outcome.verdict, outcome.reason) == ("DROP", "helper_mangle")
    assert outcome.log_text() == "nf_ct_ftp: dropping packet: cannot mangle packet"
    assert control.expected() == []


def test_an_outcome_tells_the_length_that_came() -> None:
    control = masqueraded()
    outcome = control.c(b"PORT 10,0,0,2,19,137\r\n")
    assert (outcome.length, len(outcome.packet)) == (62, 66)
    assert next(control.engine.conns()).to_dict()["bytes"][0] == 40 + 40 + 48 + 62


def test_a_gathered_packet_is_cut_anew_as_the_helper_made_it_contiguous() -> None:
    """Kernel: fragments of 44 and 53 octets leave as one of 52 and one of 45."""
    control = Control()
    line = b"227 Passive (93,184,216,34,239,141)\r\n"
    whole = ip(SERVER, CLIENT, TCP, packets.tcp(21, 2000, "PA", control.answer, control.heard, payload=line))
    head, body = whole[:20], whole[20:]
    first = packets.ipv4(SERVER, CLIENT, TCP, body[:24], fragment=0x2000)
    last = packets.ipv4(SERVER, CLIENT, TCP, body[24:], fragment=3)
    assert head[9] == TCP
    control.process(first, "out0")
    outcome = control.process(last, "out0")
    assert [len(each) for each in outcome.packets] == [52, 45]


# ── arguments ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("helpers", "words"),
    [
        ({("tcp", 21): "gopher"}, "unknown helper 'gopher'"),
        ({("udp", 21): "ftp"}, "helper 'ftp' is for tcp, not for"),
        ({("tcp", 70000): "ftp"}, "names no port"),
    ],
)
def test_a_helper_that_cannot_be_is_refused(helpers: dict[tuple[str, int], str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        engine(helpers=helpers)
