"""TCP: both grids cell by cell, each special case, each timeout rule, and the window's edges to the octet.

Facts and numbers: nf_conntrack_proto_tcp.c of Linux 6.18, each seen on a running kernel; RFC 9293, 7323, 2018.
"""

import packets
import pytest
from packets import TCP, ip, tcp
from script import Script, small_engine

# The three-way handshake all examples use: c.end 1000, c.maxend 2000, c.maxwin 8192; s.end 5000, s.maxend 13192,
# s.maxwin 1000.
HANDSHAKE = """
    > S   seq 999  win 8192                SYN_SENT 120 UNREPLIED as NEW counted
    < SA  seq 4999 ack 1000 win 1000       SYN_RECV 60 REPLIED LOOSE as ESTABLISHED counted
    > A   seq 1000 ack 5000 win 8192       ESTABLISHED 432000 ASSURED as ESTABLISHED counted
"""


def script(text: str = "", **sysctl: int) -> Script:
    return Script(sysctl={"nf_conntrack_" + name: value for name, value in sysctl.items()}).play(text)


# ── the grids ───────────────────────────────────────────────────────────────────────────────────────

# One cell: the state afterwards; IV: the packet is INVALID; IG: it passes and changes nothing.
# A SYN in TW (and, after the sender's own RST, in CL) starts a new entry: SS.
ORIGINAL_GRID = """
            SS  SR  ES  FW  CW  LA  TW  CL  S2
    S       SS  IG  IG  IG  IG  IG  SS  SS  S2
    SA      IV  SR  IV  IV  IV  IV  IV  IV  SR
    FA      IV  FW  FW  LA  LA  LA  TW  CL  IV
    A       IV  ES  ES  CW  CW  TW  TW  CL  IV
    R       CL  CL  CL  CL  CL  CL  CL  CL  CL
"""
REPLY_GRID = """
            SS  SR  ES  FW  CW  LA  TW  CL  S2
    S       S2  IV  IV  IV  IV  IV  SS  IV  S2
    SA      SR  IG  IG  IG  IG  IG  IG  IG  SR
    FA      IV  FW  FW  LA  LA  LA  TW  CL  IV
    A       IG  SR  ES  CW  CW  TW  TW  CL  IG
    R       CL  CL  CL  CL  CL  CL  CL  CL  CL
"""
NAMES = {
    "SS": "SYN_SENT", "SR": "SYN_RECV", "ES": "ESTABLISHED", "FW": "FIN_WAIT", "CW": "CLOSE_WAIT", "LA": "LAST_ACK",
    "TW": "TIME_WAIT", "CL": "CLOSE", "S2": "SYN_SENT2",
}  # fmt: skip
TIMEOUTS = {"SS": 120, "SR": 60, "ES": 432000, "FW": 120, "CW": 60, "LA": 30, "TW": 120, "CL": 10, "S2": 120}
CLASSES = {"S": 0, "SA": 1, "FA": 2, "A": 3, "R": 4}

# How to get into each state.  SS has an ignored challenge ACK behind it: it sets SEEN_REPLY, without which a RST
# would end the entry and a SYN would not renew it.
OPEN = "> S seq 999 win 8192 \n < SA seq 4999 ack 1000 win 1000 \n > A seq 1000 ack 5000 \n"
FIN = "> FA seq 1000 ack 5000 \n"
WAYS = {
    "SS": "> S seq 999 win 8192 \n < A seq 4000 ack 777 tcp_ignored",
    "SR": "> S seq 999 win 8192 \n < SA seq 4999 ack 1000 win 1000",
    "ES": OPEN,
    "FW": OPEN + FIN,
    "CW": OPEN + FIN + "< A seq 5000 ack 1001",
    "LA": OPEN + FIN + "< A seq 5000 ack 1001 \n < FA seq 5000 ack 1001",
    "TW": OPEN + FIN + "< A seq 5000 ack 1001 \n < FA seq 5000 ack 1001 \n > A seq 1001 ack 5001",
    "CL": OPEN + "> R seq 1000",
    "S2": "> S seq 999 win 8192 \n < S seq 4999 win 1000 syn_retransmitted",
}
# A packet of each class that is in every window: (sequence, acknowledgement) of a SYN, of the rest.
NUMBERS = {">": ("seq 999", "seq 1000 ack 5000"), "<": ("seq 4999", "seq 5000 ack 1000")}


def cells() -> list[tuple[str, str, str, str]]:
    rows = []
    for direction, grid in ((">", ORIGINAL_GRID), ("<", REPLY_GRID)):
        head, *lines = grid.strip().splitlines()
        for line in lines:
            flags, *row = line.split()
            rows += [(direction, flags, old, cell) for old, cell in zip(head.split(), row, strict=True)]
    return rows


@pytest.mark.parametrize(("direction", "flags", "old", "cell"), cells())
def test_every_cell_of_the_grids(direction: str, flags: str, old: str, cell: str) -> None:
    talk = script(WAYS[old])
    before = talk.entry()
    assert before is not None and before.state_name == NAMES[old]
    talk.now += 5  # less than any timeout: a refresh shows
    remaining = before.timeout() - 5
    syn, rest = NUMBERS[direction]
    if flags == "R":
        rest = "seq 1000" if direction == ">" else "seq 5000"
    if flags == "SA":
        rest = "seq 999 ack 5000" if direction == ">" else "seq 4999 ack 1000"
    words = syn if flags == "S" else rest
    facts = f"index {CLASSES[flags]} dir {int(direction == '<')}"
    where = f"log packet (index {CLASSES[flags]}) in dir {int(direction == '<')}"
    name, kept = NAMES[old], f"{NAMES[old]} {remaining} uncounted"
    if cell == "IV":
        expected = f"INVALID tcp_invalid_state {facts} {kept} {where} invalid, state {name}"
    elif cell == "IG":
        expected = f"tcp_ignored {facts} {kept} as ESTABLISHED {where} ignored, state {name}"
    else:
        expected = f"{NAMES[cell]} {TIMEOUTS[cell]} counted"
    talk.play(f"{direction} {flags} {words} {expected}")


def test_column_none_is_about_first_packets() -> None:
    for flags, expected in (
        ("S", "SYN_SENT 120 UNREPLIED as NEW"),
        ("A", "ESTABLISHED 300 UNREPLIED LOOSE as NEW"),
        ("SA", "INVALID tcp_invalid_new GONE log invalid new"),
        ("FA", "INVALID tcp_invalid_new GONE log invalid new"),
        ("R", "INVALID tcp_invalid_new GONE log invalid new"),
        ("RA", "INVALID tcp_invalid_new GONE log invalid new"),
    ):
        talk = script(f"> {flags} seq 1000 ack 5000 {expected}")
        assert talk.engine.stats.invalid == ("INVALID" in expected)


# ── 2: checks made on every packet ──────────────────────────────────────────────────────────────────

VALID = {"S", "SU", "SA", "R", "RA", "FA", "FAU", "A", "AU"}


@pytest.mark.parametrize("bits", range(256))
def test_all_flag_combinations(bits: int) -> None:
    """Valid are nine; PSH, ECE and CWR never matter."""
    letters = {letter for letter in "FSRAU" if bits & packets.flag_bits(letter)}
    engine = small_engine()
    packet = ip("10.0.0.2", "192.0.2.1", TCP, tcp(1, 2, bits))
    outcome = engine.process(packet, 0.0)
    valid = any(letters == set(text) for text in VALID)
    assert (outcome.reason == "tcp_flags") == (not valid)
    if not valid:
        assert outcome.ctinfo == "INVALID" and outcome.log_text() == "nf_ct_proto_6: invalid tcp flag combination"


@pytest.mark.parametrize(
    ("l4", "reason", "text"),
    [
        (b"", "no_tuple", None),
        (tcp(1, 2)[:3], "no_tuple", None),
        (tcp(1, 2)[:4], "tcp_short", None),
        (tcp(1, 2)[:19], "tcp_short", None),
        (tcp(1, 2)[:12] + b"\x40" + tcp(1, 2)[13:], "tcp_truncated", "truncated packet"),  # offset 4 words
        (tcp(1, 2)[:12] + b"\x60" + tcp(1, 2)[13:], "tcp_truncated", "truncated packet"),  # 6 words, 5 there
        (tcp(1, 2, "S")[:16] + b"\x12\x34\0\0", "tcp_checksum", "bad checksum"),
        (tcp(1, 2, "SF")[:16] + b"\x12\x34\0\0", "tcp_checksum", "bad checksum"),  # before the flags
        (tcp(1, 2, "SF")[:12] + b"\x40" + tcp(1, 2, "SF")[13:], "tcp_truncated", "truncated packet"),  # before both
    ],
)
def test_header_checks_and_their_order(l4: bytes, reason: str, text: str | None) -> None:
    engine = small_engine()
    packet = ip("10.0.0.2", "192.0.2.1", TCP, l4, seal=False)
    outcome = engine.process(packet, 0.0)
    assert (outcome.verdict, outcome.ctinfo, outcome.reason) == ("ACCEPT", "INVALID", reason)
    assert outcome.packet == packet
    assert outcome.log_text() == (text and f"nf_ct_proto_6: {text}")
    assert engine.stats.invalid == 1 and engine.count() == 0


def test_a_bad_checksum_is_tracked_where_nobody_looks() -> None:
    bad = ip("10.0.0.2", "192.0.2.1", TCP, tcp(1, 2)[:16] + b"\x12\x34\0\0", seal=False)
    assert small_engine(sysctl={"nf_conntrack_checksum": 0}).process(bad, 0.0).ctinfo == "NEW"


def test_a_bad_checksum_of_a_local_packet_is_not_examined() -> None:
    from conntrack import verdict
    from conntrack.wire.packet import parse

    bad = ip("10.0.0.2", "192.0.2.1", TCP, tcp(1, 2)[:16] + b"\x12\x34\0\0", seal=False)
    engine = small_engine()
    engine.advance(0.0)
    packet = parse(bad)
    conn, ctinfo = engine.enter(packet, verdict.LOCAL_OUT)
    assert conn is not None and ctinfo == verdict.NEW
    engine.drop(conn)


def test_invalid_packets_leave_the_entry_alone() -> None:
    script(
        HANDSHAKE
        + """
        +7s
        > SF seq 1000 ack 5000                     INVALID tcp_flags ESTABLISHED 431993 uncounted
        < A  seq 5000 ack 1000 badsum len 1        INVALID tcp_checksum ESTABLISHED 431993 uncounted
    """
    )


# ── 4: the first packet ─────────────────────────────────────────────────────────────────────────────


def test_without_loose_nothing_is_picked_up_and_nothing_is_logged() -> None:
    talk = script("> A seq 1000 ack 5000   INVALID tcp_not_loose GONE", tcp_loose=0)
    assert talk.last.log_text() is None


def test_a_picked_up_flow_waits_for_its_third_packet() -> None:
    script("""
        > A   seq 1000 ack 5000            ESTABLISHED 300 UNREPLIED LOOSE as NEW
        < A   seq 5000 ack 1000            ESTABLISHED 300 REPLIED LOOSE as ESTABLISHED
        > A   seq 1000 ack 5000            ESTABLISHED 432000 ASSURED
    """)


def test_a_picked_up_keepalive_is_known_by_its_answer() -> None:
    """The answer acknowledges one more than was seen; so the octet before is not data that waits."""
    script("""
        > A   seq 999  ack 5000            ESTABLISHED 300
        < A   seq 5000 ack 1000            ESTABLISHED 300
        > A   seq 1000 ack 5000            ESTABLISHED 432000 ASSURED
    """)
    script("""
        > A   seq 998  ack 5000            ESTABLISHED 300
        < A   seq 5000 ack 1000            ESTABLISHED 300
        > A   seq 1000 ack 5000            ESTABLISHED 300 ASSURED
    """)


def test_a_picked_up_flow_forgives_both_sides_every_number() -> None:
    script("""
        > PA  seq 1000 ack 5000 len 10     ESTABLISHED 300
        < A   seq 5000 ack 1010            ESTABLISHED 300
        > A   seq 800000 ack 5000 len 5    ESTABLISHED
        < A   seq 900000 ack 4             ESTABLISHED
        > A   seq 1010 ack 700000          ESTABLISHED
    """)


def test_a_rst_is_not_forgiven_by_liberality() -> None:
    script(
        HANDSHAKE + "> R seq 900  INVALID tcp_invalid_rst bound 1000 ESTABLISHED log invalid rst", tcp_be_liberal=1
    )


# ── 5.1: a SYN reopens a finished connection ────────────────────────────────────────────────────────

FAREWELL = """
    > FA  seq 1000 ack 5000                FIN_WAIT 120
    < A   seq 5000 ack 1001                CLOSE_WAIT 60
    < FA  seq 5000 ack 1001                LAST_ACK 30
    > A   seq 1001 ack 5001                TIME_WAIT 120
"""


def test_a_syn_in_time_wait_makes_a_new_entry() -> None:
    talk = script(HANDSHAKE + FAREWELL)
    old = talk.entry()
    assert old is not None
    talk.play("+3s \n > S seq 90000  SYN_SENT 120 UNREPLIED LOOSE as NEW counted")
    new = talk.entry()
    assert new is not None and new.id != old.id and new.packets == (1, 0)
    assert old.packets == (4, 3)


def test_a_syn_of_the_server_in_time_wait_makes_it_the_originator() -> None:
    talk = script(HANDSHAKE + FAREWELL + "< S seq 90000 SYN_SENT 120 UNREPLIED as NEW")
    conn = talk.entry()
    assert conn is not None and (conn.original.src, conn.original.sport) == ("192.0.2.1", 80)


def test_a_syn_after_its_senders_own_rst_makes_a_new_entry() -> None:
    script(
        HANDSHAKE
        + """
        > R   seq 1000                     CLOSE 10
        > S   seq 90000                    SYN_SENT 120 UNREPLIED as NEW
    """
    )


def test_a_syn_after_the_peers_rst_is_ignored() -> None:
    script(
        HANDSHAKE
        + """
        < R   seq 5000                     CLOSE 10 ASSURED
        +2s
        > S   seq 90000                    CLOSE 8 tcp_ignored uncounted \
            log packet (index 0) in dir 0 ignored, state CLOSE
    """
    )


def test_after_a_fin_any_rst_lets_a_syn_reopen() -> None:
    script(
        HANDSHAKE
        + """
        < FA  seq 5000 ack 1000            FIN_WAIT
        < R   seq 5001                     CLOSE 10
        > S   seq 90000                    SYN_SENT 120 UNREPLIED as NEW
    """
    )


# ── 5.2: ignored packets ────────────────────────────────────────────────────────────────────────────


def test_an_ignored_syn_answered_by_a_syn_ack_starts_the_connection_over() -> None:
    """The ends know better: ESTABLISHED -> SYN_RECV, and ASSURED stays."""
    script(
        HANDSHAKE
        + """
        > S   seq 70000 win 4000           ESTABLISHED tcp_ignored uncounted as ESTABLISHED
        < SA  seq 90000 ack 70001 win 500  SYN_RECV 60 ASSURED counted
        > A   seq 70001 ack 90001          ESTABLISHED 432000 ASSURED
        > PA  seq 70501 ack 90001 len 1    ESTABLISHED 300     # the window is the new one: 500
        < A   seq 90001 ack 70502          ESTABLISHED 432000
        > PA  seq 90000 ack 90001 len 1    INVALID seq_over_window
    """
    )


def test_resynchronisation_takes_scale_and_sack_from_the_remembered_syn() -> None:
    script(
        HANDSHAKE
        + """
        > S   seq 70000 win 4000 wscale 2  ESTABLISHED tcp_ignored
        < SA  seq 90000 ack 70001 win 500 wscale 3   SYN_RECV 60
        > A   seq 70001 ack 90001 win 500  ESTABLISHED   # 500 << 2: s.maxend is 90001 + max(4000, 2000)
        < A   seq 90001 ack 70001 win 500  ESTABLISHED   # 500 << 3: c.maxend 74001
        > PA  seq 74001 ack 90001 len 1    ESTABLISHED 300
    """
    )


def test_a_syn_ack_that_answers_another_number_stays_ignored() -> None:
    script(
        HANDSHAKE
        + """
        > S   seq 70000                    ESTABLISHED tcp_ignored
        < SA seq 90000 ack 70002  ESTABLISHED tcp_ignored log packet (index 1) in dir 1 ignored, state ESTABLISHED
    """
    )


def test_a_challenge_ack_to_a_syn_makes_the_entry_replied_although_it_is_ignored() -> None:
    script("""
        > S   seq 999                      SYN_SENT 120 UNREPLIED
        +5s
        < A   seq 5000 ack 4711            SYN_SENT 115 REPLIED tcp_ignored uncounted as ESTABLISHED
        > R   seq 4711                     CLOSE 10 counted
    """)


def test_a_repeated_syn_ack_is_ignored_unless_a_syn_came_before_it() -> None:
    script("""
        > S   seq 999  win 8192            SYN_SENT
        < SA  seq 4999 ack 1000 win 1000   SYN_RECV 60
        +5s
        < SA  seq 4999 ack 1000 win 1000   SYN_RECV 55 tcp_ignored uncounted
        +5s
        > S   seq 999  win 8192            SYN_RECV 50 tcp_ignored uncounted
        +5s
        < SA  seq 4999 ack 1000 win 1000   SYN_RECV 60 counted
    """)


# ── 5.3: impossible packets ─────────────────────────────────────────────────────────────────────────


def test_an_impossible_packet_is_invalid_and_logged() -> None:
    log = "log packet (index 0) in dir 1 invalid, state ESTABLISHED"
    script(HANDSHAKE + f"< S seq 1 INVALID tcp_invalid_state {log}")


# ── 5.4: the challenge ACK in LAST_ACK ──────────────────────────────────────────────────────────────


def test_in_last_ack_the_challenge_ack_to_a_syn_is_ignored_once() -> None:
    script(
        HANDSHAKE
        + """
        < FA  seq 5000 ack 1000            FIN_WAIT 120
        > A   seq 1000 ack 5001            CLOSE_WAIT 60
        < FA  seq 5000 ack 1000            LAST_ACK 30
        > S   seq 90000                    LAST_ACK 30 tcp_ignored
        +3s
        < A   seq 5001 ack 1000            LAST_ACK 27 tcp_challenge_ack uncounted log challenge-ack ignored
        < A   seq 5001 ack 1000            TIME_WAIT 120 counted
    """
    )


# ── 5.5: simultaneous open ──────────────────────────────────────────────────────────────────────────


def test_simultaneous_open_ended_by_an_ack() -> None:
    script("""
        > S   seq 999                      SYN_SENT 120
        +5s
        < S   seq 4999                     SYN_SENT2 115 REPLIED uncounted syn_retransmitted as ESTABLISHED
        > SA  seq 999  ack 5000            SYN_RECV 60
        < A   seq 5000 ack 1000            ESTABLISHED 432000 ASSURED
    """)


def test_simultaneous_open_ended_by_two_syn_acks() -> None:
    script("""
        > S   seq 999                      SYN_SENT
        < S   seq 4999                     SYN_SENT2 syn_retransmitted
        > SA  seq 999  ack 5000            SYN_RECV 60
        < SA  seq 4999 ack 1000            SYN_RECV tcp_ignored
        > A   seq 1000 ack 5000            ESTABLISHED 432000 ASSURED
    """)


# ── 5.6: RST ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["FW", "CW", "LA", "TW", "CL"])
@pytest.mark.parametrize("direction", "><")
def test_a_closing_connection_is_closed_by_a_rst_of_any_number(way: str, direction: str) -> None:
    script(WAYS[way] + f"\n {direction} R seq 3000000000  CLOSE 10 counted")


RESETS = [  # the RST of the client in ESTABLISHED; the server has acknowledged 1000
    ("exact", "", "> R seq 1000", "CLOSE 10"),
    ("inside the window but inexact: only the timer falls", "", "> R seq 1500", "ESTABLISHED 10 counted ASSURED"),
    ("below what was acknowledged", "", "> R seq 999", "INVALID tcp_invalid_rst bound 1000 ESTABLISHED 431990"),
    ("beyond the window", "", "> R seq 5001", "INVALID seq_over_window bound 2001"),
    ("behind its own data", "> PA seq 1000 ack 5000 len 10", "> R seq 1010", "CLOSE 10"),
    ("not quite behind its own data", "> PA seq 1000 ack 5000 len 10", "> R seq 1011", "ESTABLISHED 10"),
    (
        "behind its own data, but the peer spoke since",
        "> PA seq 1000 ack 5000 len 10 \n < A seq 5000 ack 1000 win 1000",
        "> R seq 1010",
        "ESTABLISHED 10",
    ),
    ("number 0 while assured", "", "> R seq 0", "INVALID tcp_invalid_rst"),
    ("of the server, exact", "", "< R seq 5000", "CLOSE 10"),
    ("of the server, inexact", "", "< R seq 5001", "ESTABLISHED 10"),
    ("to an ignored SYN of the other side", "> S seq 7000 tcp_ignored", "< RA seq 0 ack 7001", "CLOSE 10"),
    (
        "to an ignored SYN of its own side",
        "> S seq 7000 tcp_ignored",
        "> RA seq 1000 ack 7001",
        "INVALID ack_over_window bound 5001",
    ),
]


@pytest.mark.parametrize(("name", "before", "rst", "expected"), RESETS, ids=[row[0] for row in RESETS])
def test_a_rst_in_established(name: str, before: str, rst: str, expected: str) -> None:
    script(OPEN + before + f"\n +10s \n {rst}  {expected}")


def test_with_ignore_invalid_rst_a_low_rst_only_lowers_the_timer() -> None:
    script(OPEN + "> R seq 999   ESTABLISHED 10 counted", tcp_ignore_invalid_rst=1)


def test_before_it_is_assured_a_rst_need_only_be_in_the_window() -> None:
    syn = "> S seq 999 win 8192 \n < SA seq 4999 ack 1000 win 1000 \n"
    script(syn + "> R seq 1500   CLOSE 10")
    script(syn + "> R seq 0      CLOSE 10")  # 0 is not below the window: 1000 - 1000
    script(syn + "> R seq 999    INVALID tcp_invalid_rst bound 1000 SYN_RECV")


def test_a_rst_answers_a_challenge_ack_with_its_numbers() -> None:
    challenge = "> S seq 999 \n < A seq 50000 ack 777 tcp_ignored \n"
    script(challenge + "> R  seq 777               CLOSE 10")
    script(challenge + "> R  seq 5000              INVALID seq_over_window SYN_SENT")
    script(challenge + "> RA seq 5000 ack 50000    CLOSE 10")  # acknowledges where the challenge ended


# ── 6: timeouts and bookkeeping ─────────────────────────────────────────────────────────────────────


def test_the_visible_life_of_a_connection() -> None:
    talk = script(
        HANDSHAKE
        + """
        > PA  seq 1000 ack 5000 len 100            ESTABLISHED 300
        < A   seq 5000 ack 1100 win 1000           ESTABLISHED 432000
        < PA  seq 5000 ack 1100 len 50 win 1000    ESTABLISHED 300
        > A   seq 1100 ack 5050                    ESTABLISHED 432000
        > FA  seq 1100 ack 5050                    FIN_WAIT 120
        < A   seq 5050 ack 1101 win 1000           CLOSE_WAIT 60
        < FA  seq 5050 ack 1101 win 1000           LAST_ACK 30
        > A   seq 1101 ack 5051                    TIME_WAIT 120
        +0.5s
        > A   seq 1101 ack 5051                    TIME_WAIT 120
        +119.9s
        > A   seq 1101 ack 5051                    TIME_WAIT 120
        +120s
    """
    )
    assert talk.entry() is not None  # met by nobody yet: the script's clock is not the engine's
    talk.play("> A seq 1101 ack 5051   ESTABLISHED 300 UNREPLIED as NEW")


def test_a_repeated_or_renumbered_syn_does_not_renew_an_unanswered_entry() -> None:
    talk = script("""
        > S   seq 999                      SYN_SENT 120
        +10s
        > S   seq 999                      SYN_SENT 110 syn_retransmitted uncounted as NEW
        > S   seq 70000                    SYN_SENT 110 syn_retransmitted uncounted
        < SA  seq 4999 ack 70001           SYN_RECV 60
        > A   seq 70001 ack 5000           ESTABLISHED 432000
    """)
    conn = talk.entry()
    assert conn is not None and conn.packets == (2, 1) and conn.bytes == (80, 40)


@pytest.mark.parametrize(("line", "ctinfo"), [("< RA seq 0 ack 1000", "ESTABLISHED"), ("> R seq 1000", "NEW")])
def test_a_rst_ends_an_unanswered_entry_at_once_and_is_counted(line: str, ctinfo: str) -> None:
    engine = small_engine()
    events = engine.events
    talk = Script(engine=engine).play(f"> S seq 999 SYN_SENT \n {line} GONE as {ctinfo} counted")
    conn = talk.last.conn
    assert conn is not None and sum(conn.packets) == 2
    assert [event.type for event in events] == ["NEW", "DESTROY"]


def test_a_retransmitted_fin_counts_as_the_peers() -> None:
    script(
        HANDSHAKE
        + """
        > FA  seq 1000 ack 5000            FIN_WAIT 120
        > FA  seq 1000 ack 5000            LAST_ACK 30
    """
    )


def test_the_fourth_identical_ack_shows_the_retransmission_timeout() -> None:
    script(
        HANDSHAKE
        + """
        > A   seq 1000 ack 5000            ESTABLISHED 432000
        > A   seq 1000 ack 5000            ESTABLISHED 432000
        > A   seq 1000 ack 5000            ESTABLISHED 300
        > A   seq 1000 ack 5000 win 8000   ESTABLISHED 432000   # anything different starts the count again
    """
    )


@pytest.mark.parametrize(("limit", "copies"), [(0, 0), (1, 1), (2, 2), (5, 5)])
def test_max_retrans_is_the_number_of_copies(limit: int, copies: int) -> None:
    talk = script(OPEN.replace("> A seq 1000 ack 5000", ""), tcp_max_retrans=limit)
    for copy in range(copies + 1):
        talk.play(f"> A seq 1000 ack 5000 ESTABLISHED {300 if copy >= limit else 432000}")


def test_a_zero_window_shortens_the_timeout() -> None:
    script(
        HANDSHAKE
        + """
        < A   seq 5000 ack 1000 win 0      ESTABLISHED 300
        > A   seq 1000 ack 5000            ESTABLISHED 432000
    """
    )


def test_timeouts_come_from_the_sysctls() -> None:
    """The `retrans` timer also caps all else until a first acknowledgement has shown a window."""
    suffixes = ["syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait", "close"]
    sysctl = {f"tcp_timeout_{name}": 1000 + number for number, name in enumerate(suffixes)}
    sysctl |= {"tcp_timeout_established": 4000, "tcp_timeout_unacknowledged": 3000, "tcp_timeout_max_retrans": 2000}
    script("""
        > S   seq 999                      SYN_SENT 1000
        < SA  seq 4999 ack 1000 win 1000   SYN_RECV 1001
        > A   seq 1000 ack 5000            ESTABLISHED 4000
        > PA  seq 1000 ack 5000 len 1      ESTABLISHED 3000    # unacknowledged
        < A   seq 5000 ack 1001 win 0      ESTABLISHED 2000    # zero window
        < A   seq 5000 ack 1001 win 1000   ESTABLISHED 4000
        > FA  seq 1001 ack 5000            FIN_WAIT 1003
        < A   seq 5000 ack 1002 win 1000   CLOSE_WAIT 1004
        < FA  seq 5000 ack 1002 win 1000   LAST_ACK 1005
        > A   seq 1002 ack 5001            TIME_WAIT 1006
        > R   seq 1002                     CLOSE 1007
    """, **sysctl)  # fmt: skip
    script("> S seq 999   SYN_SENT 66", tcp_timeout_max_retrans=66)


def test_a_fixed_timeout_is_not_renewed_but_state_and_counters_are() -> None:
    talk = script("> S seq 999 win 8192 \n < SA seq 4999 ack 1000 win 1000 SYN_RECV 60")
    conn = talk.entry()
    assert conn is not None
    conn.status |= 1 << 10  # FIXED_TIMEOUT
    talk.play("+20s \n > A seq 1000 ack 5000  ESTABLISHED 40 ASSURED counted")
    assert conn.packets == (2, 1)


# ── 7: windows ──────────────────────────────────────────────────────────────────────────────────────

EXAMPLES = [
    ("data up to the edge", "> PA seq 2000 ack 5000 len 10", "ESTABLISHED 300 counted"),
    (
        "data one octet over the edge",
        "> PA seq 2001 ack 5000 len 10",
        "ESTABLISHED 431999 seq_overshot uncounted as ESTABLISHED overshot 12 log 12 bytes more than expected",
    ),
    (
        "data far over the edge",
        "> PA seq 5001 ack 5000 len 10",
        "INVALID seq_over_window log SEQ is over upper bound 2001 (over the window of the receiver)",
    ),
    (
        "acknowledging what was never sent",
        "< A seq 5000 ack 1001",
        "INVALID ack_over_window log ACK is over upper bound 1001 (ACKed data not seen yet)",
    ),
    ("data as old as the window is wide", f"< A seq {5000 - 8192} ack 1000", "ESTABLISHED 432000 counted"),
    (
        "older data",
        f"< A seq {5000 - 8193} ack 1000",
        "ESTABLISHED 431999 uncounted seq_under_window log SEQ is under lower bound 4294964103"
        " (already ACKed data retransmitted)",
    ),
    ("an old acknowledgement", f"< A seq 5000 ack {1000 - 66000}", "ESTABLISHED 432000 counted"),
    (
        "an older acknowledgement",
        f"< A seq 5000 ack {1000 - 66001}",
        "ESTABLISHED 431999 uncounted ack_under_window log ignored ACK under lower bound 4294902295"
        " (possible overly delayed)",
    ),
    ("overshot as large as the window", "> PA seq 2001 ack 5000 len 998", "seq_overshot overshot 1000"),
    ("overshot larger than the window", "> PA seq 2001 ack 5000 len 999", "INVALID seq_over_window bound 2001"),
]


@pytest.mark.parametrize(("name", "line", "expected"), EXAMPLES, ids=[row[0] for row in EXAMPLES])
def test_the_edges_of_the_window(name: str, line: str, expected: str) -> None:
    script(OPEN.replace("ack 5000", "ack 5000 win 8192") + f"+1s \n {line}  {expected}")


def test_accepted_data_widens_the_receivers_window() -> None:
    """c.end 2010, s.maxwin 1010: so 1000 is the oldest end that is not yet 'already acknowledged'."""
    data = HANDSHAKE + "> PA seq 2000 ack 5000 len 10  ESTABLISHED \n"
    script(data + "> A seq 1000 ack 5000   ESTABLISHED counted")
    script(data + "> A seq 999 ack 5000    seq_under_window bound 999")


def test_what_overshot_may_be_acknowledged() -> None:
    script(
        HANDSHAKE
        + """
        > PA  seq 2001 ack 5000 len 10     ESTABLISHED 432000 seq_overshot
        < A   seq 5000 ack 2011 win 1000   ESTABLISHED 432000 counted
        < A   seq 5000 ack 2012 win 1000   INVALID ack_over_window bound 2012
    """
    )


def test_overshot_data_shortens_the_timeout_of_the_next_packet() -> None:
    script(
        HANDSHAKE
        + """
        > PA  seq 2001 ack 5000 len 10     ESTABLISHED 432000 seq_overshot
        < A   seq 5000 ack 1000 win 1000   ESTABLISHED 300
    """
    )


def test_liberal_accepts_anything_silently_and_learns_nothing_from_it() -> None:
    talk = script(HANDSHAKE + """
        > PA  seq 900000 ack 5000 len 1    ESTABLISHED 432000 counted as ESTABLISHED
        < A   seq 5000 ack 700000          ESTABLISHED 432000 counted
    """, tcp_be_liberal=1)  # fmt: skip
    talk.engine.sysctl["nf_conntrack_tcp_be_liberal"] = 0
    talk.play("> PA seq 5001 ack 5000 len 10  INVALID seq_over_window bound 2001")


SCALED = """
    > S   seq 999  win 8192 wscale 7           SYN_SENT
    < SA  seq 4999 ack 1000 win 1000 wscale 3  SYN_RECV
    > A   seq 1000 ack 5000 win 64             ESTABLISHED
    < A   seq 5000 ack 1000 win 1000           ESTABLISHED
"""


def test_both_scales_count_from_the_segment_after_the_syn_on() -> None:
    """The SYN/ACK's 1000 is 1000, the next segment's is 8000: c.maxend is 9000."""
    script(SCALED + "> PA seq 9000 ack 5000 len 1   ESTABLISHED 300")
    script(SCALED + "> PA seq 9001 ack 5000 len 1   seq_overshot overshot 3")
    script(SCALED + f"< PA seq {5000 + 8192} ack 1000 win 1000 len 1   ESTABLISHED")  # 64 << 7 is 8192 again
    script(SCALED + f"< PA seq {5000 + 8193} ack 1000 win 1000 len 1   seq_overshot overshot 3")


def test_a_scale_only_one_side_offers_counts_for_neither() -> None:
    one_sided = SCALED.replace("wscale 3", "")
    script(one_sided + "> PA seq 2000 ack 5000 len 1   ESTABLISHED 300")
    script(one_sided + "> PA seq 2001 ack 5000 len 1   seq_overshot overshot 3")
    script(SCALED.replace("wscale 7", "") + "> PA seq 2001 ack 5000 len 1   seq_overshot overshot 3")


def test_a_scale_above_14_counts_as_14() -> None:
    wide = SCALED.replace("wscale 3", "wscale 15").replace("ack 1000 win 1000           EST", "ack 1000 win 2 EST")
    script(wide + f"> PA seq {1000 + (2 << 14)} ack 5000 len 1   ESTABLISHED")
    script(wide + f"> PA seq {1001 + (2 << 14)} ack 5000 len 1   seq_overshot overshot 3")


SACKING = """
    > S   seq 999  win 8192 sackok             SYN_SENT
    < SA  seq 4999 ack 1000 win 1000 sackok    SYN_RECV
    > A   seq 1000 ack 5000                    ESTABLISHED
"""


def test_a_sack_of_data_never_sent_is_too_much() -> None:
    sack = "< A seq 5000 ack 1000 win 1000 sack 1500-1600"
    script(SACKING + f"{sack}  INVALID ack_over_window bound 1001")
    script(HANDSHAKE + f"{sack}  ESTABLISHED 432000")  # not negotiated: not looked at
    script(SACKING.replace("1000 sackok", "1000") + f"{sack}  INVALID ack_over_window bound 1001")
    script(SACKING.replace("8192 sackok", "8192") + f"{sack}  ESTABLISHED 432000")


def test_what_is_sacked_opens_the_window_as_an_acknowledgement_does() -> None:
    sacked = (
        SACKING
        + """
        > PA  seq 1000 ack 5000 len 100                        ESTABLISHED 300
        < A   seq 5000 ack 1000 win 1000 sack 1050-1100        ESTABLISHED 300
    """
    )
    script(sacked + "> PA seq 2100 ack 5000 len 1   ESTABLISHED")
    script(sacked + "> PA seq 2101 ack 5000 len 1   seq_overshot overshot 3")


def test_the_highest_edge_of_the_first_sack_option_counts() -> None:
    engine = small_engine()
    talk = Script(engine=engine).play(SACKING + "> PA seq 1000 ack 5000 len 100 ESTABLISHED")
    options = packets.tcp_options(sack=[(1010, 1020), (1030, 1101), (1050, 1060)])
    packet = ip("192.0.2.1", "10.0.0.2", TCP, tcp(80, 1234, "A", 5000, 1000, 1000, options=options))
    outcome = engine.process(packet, talk.now)
    assert (outcome.reason, outcome.detail) == ("ack_over_window", {"ack": 1101, "bound": 1101})


def test_timestamps_are_no_sack() -> None:
    script(SACKING + "< A seq 5000 ack 1000 win 1000 ts  ESTABLISHED 432000")


def test_a_closed_window_lets_one_octet_through() -> None:
    closed = (
        HANDSHAKE
        + """
        > PA  seq 1000 ack 5000 len 1000           ESTABLISHED 300
        < A   seq 5000 ack 2000 win 0              ESTABLISHED 300
    """
    )
    script(closed + "> PA seq 2001 ack 5000 len 1  ESTABLISHED")
    script(closed + "> PA seq 2002 ack 5000 len 1  seq_overshot overshot 3")


def test_a_keepalive_is_old_data_and_its_answer_is_right() -> None:
    script(
        HANDSHAKE
        + """
        > A   seq 999 ack 5000 len 1               ESTABLISHED 432000
        < A   seq 5000 ack 1000 win 1000           ESTABLISHED 432000
    """
    )


def test_sequence_numbers_wrap() -> None:
    high = 2**32 - 5
    script(f"""
        > S   seq {high}             win 8192      SYN_SENT
        < SA  seq {high} ack {high + 1} win 1000   SYN_RECV
        > A   seq {high + 1} ack {high + 1}        ESTABLISHED 432000
        > PA  seq {high + 1} ack {high + 1} len 20 ESTABLISHED 300
        < A   seq {high + 1} ack 16 win 1000       ESTABLISHED 432000
        < A   seq {high + 1} ack 17 win 1000       INVALID ack_over_window bound 17
        > PA  seq 1017 ack {high + 1} len 1        seq_overshot overshot 3
    """)


def test_a_window_larger_than_66000_reaches_further_back() -> None:
    script(f"""
        > S   seq 999  win 8192 wscale 7                   SYN_SENT
        < SA  seq 4999 ack 1000 win 1000 wscale 7          SYN_RECV
        > A   seq 1000 ack 5000 win 64                     ESTABLISHED
        < A   seq 5000 ack 1000 win 1000                   ESTABLISHED     # 128,000
        < A   seq 5000 ack {1000 - 128000} win 1000        ESTABLISHED counted
        < A   seq 5000 ack {1000 - 128001} win 1000        ack_under_window
    """)


def test_an_acknowledgement_of_zero_in_a_rst_is_none() -> None:
    script(HANDSHAKE + "< RA seq 5000 ack 0   CLOSE 10")


# ── 8: out-of-window FIN and RST ────────────────────────────────────────────────────────────────────


def test_fins_out_of_the_window_from_both_sides_lower_the_timer() -> None:
    script(
        HANDSHAKE
        + """
        > FA  seq 900000 ack 5000          INVALID seq_over_window ESTABLISHED 432000
        < FA  seq 900000 ack 1000          INVALID tcp_timeout_lowered ESTABLISHED 300 \
            log packet (index 2, dir 1) response for index 2 lower timeout to 75000
    """
    )


def test_out_of_window_rst_and_fin_count_alike() -> None:
    script(
        HANDSHAKE
        + """
        > R   seq 900000                   INVALID seq_over_window ESTABLISHED 432000
        < FA  seq 900000 ack 1000          INVALID tcp_timeout_lowered ESTABLISHED 300
    """
    )


def test_out_of_window_fins_of_one_side_lower_nothing() -> None:
    script(
        HANDSHAKE
        + """
        > FA  seq 900000 ack 5000          INVALID ESTABLISHED 432000
        > FA  seq 900000 ack 5000          INVALID ESTABLISHED 432000
        < A   seq 5000 ack 1000 win 1000   ESTABLISHED 432000      # a proper packet between them: forgotten
        < FA  seq 900000 ack 1000          INVALID ESTABLISHED 432000
    """
    )


def test_the_timer_is_lowered_only_where_more_than_two_minutes_are_left() -> None:
    lines = "> FA seq 900000 ack 5000  INVALID \n < FA seq 900000 ack 1000  INVALID ESTABLISHED "
    script(OPEN + lines + "119", tcp_timeout_unacknowledged=50, tcp_timeout_established=119)
    script(OPEN + lines + "50", tcp_timeout_unacknowledged=50, tcp_timeout_established=121)


def test_unassured_entries_are_left_alone() -> None:
    script("""
        > S   seq 999 win 8192             SYN_SENT
        < SA  seq 4999 ack 1000 win 1000   SYN_RECV 60
        +5s
        > FA  seq 900000 ack 5000          INVALID SYN_RECV 55
        < FA  seq 900000 ack 1000          INVALID SYN_RECV 55
    """)
