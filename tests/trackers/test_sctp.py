"""SCTP: both grids chunk by chunk, whose tag a packet must carry, and the paths of multi-homed ends.

Facts: nf_conntrack_proto_sctp.c of Linux 6.18, seen on a running kernel; RFC 9260 sections 3.3, 8.4, 8.5.
"""

from __future__ import annotations

import struct

import packets
import pytest
from packets import SCTP, ip
from script import CHUNKS, Script, small_engine

CLIENT, SERVER = "10.0.0.2", "192.0.2.1"
# Who sends must carry the tag that the other side asked for in its INIT: the client 9, the server 7.
OPEN = """
    > init/7         vtag 0       CLOSED 10 UNREPLIED as NEW counted
    < init_ack/9     vtag 7       COOKIE_WAIT 3 REPLIED as ESTABLISHED counted
    > cookie_echo    vtag 9       COOKIE_ECHOED 3 LOOSE
    < cookie_ack     vtag 7       ESTABLISHED 210 ASSURED
"""


def script(text: str = "", **sysctl: int) -> Script:
    return Script(SCTP, sysctl={"nf_conntrack_" + name: value for name, value in sysctl.items()}).play(text)


def test_the_whole_life_of_an_association() -> None:
    script(
        OPEN
        + """
        > data              vtag 9    ESTABLISHED 210 counted
        < sack              vtag 7    ESTABLISHED 210 counted
        > heartbeat         vtag 9    ESTABLISHED 210
        < heartbeat_ack     vtag 7    ESTABLISHED 210
        > shutdown          vtag 9    SHUTDOWN_SENT 3
        < shutdown_ack      vtag 7    SHUTDOWN_ACK_SENT 3
        > shutdown_complete vtag 9    CLOSED 10
    """
    )


def test_the_server_may_close() -> None:
    script(
        OPEN
        + """
        < shutdown          vtag 7    SHUTDOWN_RECD 3
        > shutdown_ack      vtag 9    SHUTDOWN_ACK_SENT 3
        < shutdown_complete vtag 7    CLOSED 10
    """
    )


def test_timeouts_are_sysctls() -> None:
    names = ["closed", "cookie_wait", "cookie_echoed", "established", "shutdown_sent", "shutdown_recd",
             "shutdown_ack_sent", "heartbeat_sent"]  # fmt: skip
    sysctl = {f"sctp_timeout_{name}": 100 + number for number, name in enumerate(names)}
    script("""
        > init/7            vtag 0    CLOSED 100
        < init_ack/9        vtag 7    COOKIE_WAIT 101
        > cookie_echo       vtag 9    COOKIE_ECHOED 102
        < cookie_ack        vtag 7    ESTABLISHED 103
        > shutdown          vtag 9    SHUTDOWN_SENT 104
        < shutdown_ack      vtag 7    SHUTDOWN_ACK_SENT 106
    """, **sysctl)  # fmt: skip
    script("> heartbeat vtag 5   HEARTBEAT_SENT 107", **sysctl)


# ── the grids ───────────────────────────────────────────────────────────────────────────────────────

ORIGINAL_GRID = """
                       CL  CW  CE  ES  SS  SR  SA  HS
    init               CL  CW  CE  ES  CL  CL  SA  CW
    init_ack           CL  CW  CE  ES  SS  SR  SA  CL
    abort              CL  CL  CL  CL  CL  CL  CL  CL
    shutdown           CL  CW  CE  SS  SS  SR  SA  CL
    shutdown_ack       CL  CW  CE  ES  SA  SA  SA  SA
    error              CL  CW  CE  ES  SS  SR  SA  CL
    cookie_echo        CL  CE  CE  ES  SS  SR  SA  CL
    cookie_ack         CL  CW  ES  ES  SS  SR  SA  CL
    shutdown_complete  CL  CW  CE  ES  SS  SR  CL  CL
    heartbeat          CL  CW  CE  ES  SS  SR  SA  HS
    heartbeat_ack      CL  CW  CE  ES  SS  SR  SA  HS
    data               CL  CW  CE  ES  SS  SR  SA  HS
"""
REPLY_GRID = """
                       CL  CW  CE  ES  SS  SR  SA  HS
    init               CL  CW  CE  ES  SS  SR  SA  IV
    init_ack           CW  CW  CE  ES  SS  SR  SA  IV
    abort              CL  CL  CL  CL  CL  CL  CL  IV
    shutdown           CL  CW  CE  SR  SS  SR  SA  IV
    shutdown_ack       CL  CW  CE  ES  SA  SA  SA  IV
    error              CL  CW  CL  ES  SS  SR  SA  IV
    cookie_echo        CL  CE  CE  ES  SS  SR  SA  IV
    cookie_ack         CL  CW  ES  ES  SS  SR  SA  IV
    shutdown_complete  CL  CW  CE  ES  SS  SR  CL  IV
    heartbeat          CL  CW  CE  ES  SS  SR  SA  HS
    heartbeat_ack      CL  CW  CE  ES  SS  SR  SA  ES
    data               CL  CW  CE  ES  SS  SR  SA  HS
"""
NAMES = {
    "CL": "CLOSED", "CW": "COOKIE_WAIT", "CE": "COOKIE_ECHOED", "ES": "ESTABLISHED", "SS": "SHUTDOWN_SENT",
    "SR": "SHUTDOWN_RECD", "SA": "SHUTDOWN_ACK_SENT", "HS": "HEARTBEAT_SENT",
}  # fmt: skip
TIMEOUTS = {"CL": 10, "CW": 3, "CE": 3, "ES": 210, "SS": 3, "SR": 3, "SA": 3, "HS": 30}
BEGIN = "> init/7 vtag 0 \n < init_ack/9 vtag 7 \n > cookie_echo vtag 9 \n < cookie_ack vtag 7 \n"
WAYS = {
    "CL": BEGIN + "> abort vtag 9",
    "CW": "> init/7 vtag 0 \n < init_ack/9 vtag 7",
    "CE": "> init/7 vtag 0 \n < init_ack/9 vtag 7 \n > cookie_echo vtag 9",
    "ES": BEGIN,
    "SS": BEGIN + "> shutdown vtag 9",
    "SR": BEGIN + "< shutdown vtag 7",
    "SA": BEGIN + "> shutdown vtag 9 \n < shutdown_ack vtag 7",
    "HS": "> heartbeat vtag 9",
}


def cells() -> list[tuple[str, str, str, str]]:
    rows = []
    for direction, grid in ((">", ORIGINAL_GRID), ("<", REPLY_GRID)):
        head, *lines = grid.strip().splitlines()
        for line in lines:
            chunk, *row = line.split()
            rows += [(direction, chunk, old, cell) for old, cell in zip(head.split(), row, strict=True)]
    return rows


@pytest.mark.parametrize(("direction", "chunk", "old", "cell"), cells())
def test_every_cell_of_the_grids(direction: str, chunk: str, old: str, cell: str) -> None:
    talk = script(WAYS[old])
    talk.now += 1
    tag = {">": 9, "<": 7}[direction]
    if old == "HS" and direction == "<":
        tag = 0  # the server's tag is not known yet
    # INITs carry no tag but ask for one; here each asks again for what it has asked for before
    word = f"{chunk}/{ {'>': 7, '<': 9}[direction] }" if chunk.startswith("init") else chunk
    left = TIMEOUTS[old] - 1
    if cell == "IV":
        # what a chunk does to the tags before its cell says INVALID is not undone, but no state changes
        expected = f"INVALID sctp_invalid_state {NAMES[old]} {left}"
    elif chunk == "init" and old == cell == "CL":
        expected = f"sctp_ignored CLOSED {left} uncounted"
    else:
        expected = f"{NAMES[cell]} {TIMEOUTS[cell]} counted"
    talk.play(f"{direction} {word} vtag {0 if chunk == 'init' else tag}  {expected}")


# ── the first packet ────────────────────────────────────────────────────────────────────────────────

FIRST = [
    ("init/7 vtag 0", "CLOSED 10 as NEW"),
    ("init/7 vtag 1", "INVALID sctp_invalid_new GONE"),
    ("init_ack/7 vtag 0", "CLOSED 10 as NEW"),
    ("shutdown vtag 0", "CLOSED 10 as NEW"),
    ("shutdown_ack vtag 5", "SHUTDOWN_ACK_SENT 3 as NEW"),
    ("error vtag 0", "CLOSED 10 as NEW"),
    ("cookie_echo vtag 0", "CLOSED 10 as NEW"),
    ("cookie_echo vtag 5", "INVALID sctp_chunk_vtag GONE"),
    ("heartbeat vtag 5", "HEARTBEAT_SENT 30 as NEW"),
    ("heartbeat_ack vtag 5", "CLOSED 10 as NEW"),
    ("abort vtag 5", "INVALID sctp_invalid_new GONE"),
    ("shutdown_complete vtag 5", "INVALID sctp_invalid_new GONE"),
    ("cookie_ack vtag 5", "INVALID sctp_invalid_new GONE"),
    ("data vtag 5", "INVALID sctp_invalid_new GONE"),
    ("sack vtag 5", "INVALID sctp_invalid_new GONE"),
    ("asconf vtag 5", "INVALID sctp_invalid_new GONE"),
    ("heartbeat+abort vtag 5", "INVALID sctp_invalid_new GONE"),
    ("heartbeat+data vtag 5", "INVALID sctp_invalid_new GONE"),
]


@pytest.mark.parametrize(("words", "expected"), FIRST, ids=[row[0] for row in FIRST])
def test_what_may_come_first(words: str, expected: str) -> None:
    script(f"> {words}  {expected}")


# ── which chunks may stand together ─────────────────────────────────────────────────────────────────

TOGETHER = [
    ("init/7+data vtag 0", False),
    ("data+init/7 vtag 0", False),
    ("init_ack/9+data vtag 7", False),
    ("shutdown_complete+data vtag 7", False),
    ("data+shutdown_complete vtag 7", False),
    ("data+cookie_echo vtag 9", False),
    ("data+cookie_ack vtag 9", False),
    ("cookie_ack+data vtag 9", True),
    ("cookie_echo+data vtag 9", True),
    ("sack+data+data vtag 9", True),
]


@pytest.mark.parametrize(("words", "fine"), TOGETHER, ids=[row[0] for row in TOGETHER])
def test_which_chunks_may_stand_together(words: str, fine: bool) -> None:
    script(BEGIN + f"> {words}  {'ESTABLISHED counted' if fine else 'INVALID sctp_chunks ESTABLISHED'}")


def raw(body: bytes, vtag: int = 9) -> bytes:
    return ip(CLIENT, SERVER, SCTP, packets.sctp(1234, 80, vtag) + body)


@pytest.mark.parametrize("body", [b"", b"\0\0\0"])
def test_a_packet_needs_a_chunk_and_the_kernel_does_not_say_so(body: bytes) -> None:
    talk = script(BEGIN)
    outcome = talk.engine.process(raw(body), talk.now)
    assert (outcome.ctinfo, outcome.reason, outcome.log_text()) == ("INVALID", "sctp_no_chunk", None)


@pytest.mark.parametrize("body", [b"\0\0\0\0", packets.chunk(0, b"x") + b"\0\0\0\0"])
def test_a_packet_needs_chunks_with_a_length(body: bytes) -> None:
    talk = script(BEGIN)
    outcome = talk.engine.process(raw(body), talk.now)
    assert (outcome.ctinfo, outcome.reason) == ("INVALID", "sctp_chunks")
    assert (outcome.log_text() or "").startswith("nf_ct_proto_132: do_basic_checks failed. chunk num ")


def test_chunks_are_padded_to_words() -> None:
    talk = script(BEGIN)
    body = packets.chunk(0, b"12345") + packets.chunk(7, bytes(4))
    talk.engine.process(raw(body), talk.now)
    conn = talk.entry()
    assert conn is not None and conn.state_name == "SHUTDOWN_SENT"


def test_short_and_wrongly_summed_packets_are_invalid() -> None:
    whole = packets.sealed(CLIENT, SERVER, SCTP, packets.sctp(1, 2, 0, packets.chunk(1, bytes(16))))
    for l4, reason, text in (
        (whole[:3], "no_tuple", None),
        (whole[:11], "sctp_short", "nf_ct_sctp: short packet "),
        (whole[:8] + b"\1\2\3\4" + whole[12:], "sctp_crc", "nf_ct_sctp: bad CRC "),
    ):
        outcome = small_engine().process(ip(CLIENT, SERVER, SCTP, l4, seal=False), 0.0)
        assert (outcome.ctinfo, outcome.reason) == ("INVALID", reason)
        assert outcome.log_text() == (text and f"nf_ct_proto_132: {text}")
    engine = small_engine(sysctl={"nf_conntrack_checksum": 0})
    bad = ip(CLIENT, SERVER, SCTP, whole[:8] + b"\1\2\3\4" + whole[12:], seal=False)
    assert engine.process(bad, 0.0).ctinfo == "NEW"


# ── tags ────────────────────────────────────────────────────────────────────────────────────────────

TAGS = [  # packet, expected, in an established association (client sends 9, server 7)
    ("> data vtag 9", "ESTABLISHED 210"),
    ("> data vtag 7", "INVALID sctp_vtag"),
    ("> data vtag 0", "INVALID sctp_vtag"),
    ("< data vtag 7", "ESTABLISHED 210"),
    ("< data vtag 9", "INVALID sctp_vtag"),
    ("> shutdown vtag 8", "INVALID sctp_vtag ESTABLISHED"),
    ("> abort vtag 9", "CLOSED 10"),
    ("> abort vtag 7", "INVALID sctp_chunk_vtag ESTABLISHED"),
    ("> abort* vtag 7", "CLOSED 10"),  # T bit: the receiver's own tag, reflected
    ("> abort* vtag 9", "INVALID sctp_chunk_vtag"),
    ("< abort* vtag 9", "CLOSED 10"),
    ("> cookie_echo vtag 9", "ESTABLISHED"),
    ("> cookie_echo vtag 8", "INVALID sctp_chunk_vtag"),
    ("> shutdown_complete vtag 9", "ESTABLISHED"),
    ("> shutdown_complete vtag 7", "INVALID sctp_chunk_vtag"),
    ("> shutdown_complete* vtag 7", "ESTABLISHED"),
    ("> init/8 vtag 9", "INVALID sctp_chunk_vtag"),
    ("> shutdown_ack vtag 12345", "ESTABLISHED"),  # has no rule of its own
    ("> cookie_ack vtag 8", "INVALID sctp_vtag"),
    ("> data+abort vtag 9", "CLOSED 10"),
]


@pytest.mark.parametrize(("words", "expected"), TAGS, ids=[row[0] for row in TAGS])
def test_which_tag_a_packet_must_carry(words: str, expected: str) -> None:
    script(BEGIN + f"{words}   {expected}")


def test_the_log_shows_tags_as_the_machine_reads_them() -> None:
    script(BEGIN + "> data vtag 187   INVALID log verification tag check failed bb000000 vs 9000000 for dir 0")


def test_a_second_init_from_the_client_changes_the_tag_of_the_server() -> None:
    script("""
        > init/7         vtag 0       CLOSED 10
        +4s
        > init/8         vtag 0       CLOSED 6 sctp_ignored uncounted
        < init_ack/9     vtag 7       INVALID sctp_vtag
        < init_ack/9     vtag 8       COOKIE_WAIT 3
    """)


def test_an_init_ack_must_agree_with_what_is_known() -> None:
    script(BEGIN + "< init_ack/10 vtag 7   INVALID sctp_chunk_vtag ESTABLISHED")
    script(BEGIN + "< init_ack/9  vtag 7   ESTABLISHED")


def test_both_sides_may_begin_at_once() -> None:
    script("""
        > init/7         vtag 0       CLOSED 10
        < init/9         vtag 0       CLOSED sctp_ignored
        < init_ack/9     vtag 7       COOKIE_WAIT 3
        > init_ack/7     vtag 9       COOKIE_WAIT 3
        > cookie_echo    vtag 9       COOKIE_ECHOED 3
        < cookie_ack     vtag 7       ESTABLISHED 210 ASSURED
    """)


def test_after_two_inits_an_init_ack_must_agree_with_both() -> None:
    crossed = """
        > init/7         vtag 0       CLOSED 10
        < init/9         vtag 0       CLOSED sctp_ignored
    """
    script(crossed + "< init_ack/10 vtag 7   INVALID sctp_chunk_vtag CLOSED")
    script(crossed + "> init/8 vtag 0 sctp_ignored \n < init_ack/10 vtag 8   COOKIE_WAIT 3")  # 8 undid the 9
    script(crossed + "> init/7 vtag 0 sctp_ignored \n < init_ack/10 vtag 7   INVALID sctp_chunk_vtag")  # 7 again


# ── heartbeats ──────────────────────────────────────────────────────────────────────────────────────


def test_a_second_path_is_learned_from_heartbeats() -> None:
    script("""
        > heartbeat      vtag 9       HEARTBEAT_SENT 30 UNREPLIED as NEW
        < heartbeat_ack  vtag 7       ESTABLISHED 210 ASSURED
        > data           vtag 9       ESTABLISHED 210
        < data           vtag 7       ESTABLISHED 210
        < data           vtag 8       INVALID sctp_vtag
    """)


def test_a_heartbeat_with_a_new_tag_is_believed_if_the_answer_agrees() -> None:
    script(
        BEGIN
        + """
        +10s
        > heartbeat      vtag 99      ESTABLISHED 200 sctp_ignored uncounted
        < heartbeat_ack  vtag 77      ESTABLISHED 210 counted
        < data           vtag 77      ESTABLISHED 210
        > data           vtag 99      INVALID sctp_vtag            # forgotten until a heartbeat shows it again
        > heartbeat      vtag 99      ESTABLISHED 210
        > data           vtag 99      ESTABLISHED 210
    """
    )


def test_a_heartbeat_with_a_new_tag_and_data_is_invalid() -> None:
    script(BEGIN + "> heartbeat+data vtag 99   INVALID sctp_chunk_vtag")
    script(BEGIN + "> heartbeat+heartbeat vtag 99   INVALID sctp_chunk_vtag")


def test_an_answer_with_a_new_tag_needs_a_failed_heartbeat_of_the_other_side() -> None:
    script(BEGIN + "< heartbeat_ack vtag 77   INVALID sctp_chunk_vtag")
    script(BEGIN + "> heartbeat vtag 99 sctp_ignored \n > heartbeat_ack vtag 99   INVALID sctp_chunk_vtag")
    script(
        BEGIN
        + """
        > heartbeat      vtag 99      sctp_ignored
        > heartbeat      vtag 9       ESTABLISHED          # the right tag again: nothing has failed
        < heartbeat_ack  vtag 77      INVALID sctp_chunk_vtag
    """
    )


def test_every_chunk_of_a_packet_moves_the_state() -> None:
    """COOKIE_ACK together with SHUTDOWN: the timeout is that of the last state."""
    script("""
        > init/7              vtag 0  CLOSED
        < init_ack/9          vtag 7  COOKIE_WAIT
        > cookie_echo+data    vtag 9  COOKIE_ECHOED 3
        < cookie_ack+shutdown vtag 7  SHUTDOWN_RECD 3 ASSURED
    """)


def test_what_earlier_chunks_changed_stays_though_a_later_one_is_invalid() -> None:
    talk = script(BEGIN)
    engine = talk.engine
    body = packets.chunk(CHUNKS["shutdown"], bytes(4)) + packets.chunk(CHUNKS["abort"], flags=1)
    outcome = engine.process(raw(body), talk.now)
    assert (outcome.ctinfo, outcome.reason) == ("INVALID", "sctp_chunk_vtag")
    conn = talk.entry()
    assert conn is not None and conn.state_name == "SHUTDOWN_SENT" and conn.timeout() == 210


def test_an_init_too_short_for_its_tag_is_invalid() -> None:
    talk = script(BEGIN)
    outcome = talk.engine.process(raw(struct.pack("!BBH", 1, 0, 4), vtag=0), talk.now)
    assert outcome.ctinfo == "INVALID"


@pytest.mark.parametrize(("octets", "ctinfo"), [(19, "INVALID"), (20, "NEW")])
def test_an_init_must_be_there_whole(octets: int, ctinfo: str) -> None:
    # seen on Linux 6.18: whatever the chunk's length says, chunk header and fixed fields take 20 octets
    init = packets.chunk(1, struct.pack("!IIHHI", 7, 8000, 1, 1, 1))
    packet = ip(CLIENT, SERVER, SCTP, packets.sctp(1, 2, 0, init[:octets]))
    assert small_engine().process(packet, 0.0).ctinfo == ctinfo
