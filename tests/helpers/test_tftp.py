"""TFTP: the server answers from another port; expectations, events and texts as on Linux 6.18."""

from __future__ import annotations

import packets
import pytest

from conntrack import Masquerade
from conntrack.show import expectation_proc_line

from .control import CLIENT, SERVER, Control, engine

REQUEST = b"\0\1boot\0octet\0"


class Talk(Control):
    """Without a control connection."""

    def __post_init__(self) -> None:
        pass


def test_a_request_expects_the_server_s_answer_from_any_port_before_its_own_connection_is_known() -> None:
    talk = Talk()
    talk.datagram(CLIENT, SERVER, 2000, 69, REQUEST)
    assert talk.events() == ["EXP_NEW 2000", "NEW 69"]
    (expectation,) = talk.engine.expectations()
    assert expectation.text() == (
        "300 proto=17 src=93.184.216.34 dst=10.0.0.2 sport=0 dport=2000 mask-src=255.255.255.255 "
        "mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.0.0.2 master-dst=93.184.216.34 "
        "sport=2000 dport=69 class=0 helper=tftp"
    )
    assert expectation_proc_line(expectation.to_dict()) == (
        "300 l3proto = 2 proto=17 src=93.184.216.34 dst=10.0.0.2 sport=0 dport=2000 tftp"
    )
    outcome = talk.datagram(SERVER, CLIENT, 3456, 2000, b"\0\3\0\1data")
    assert outcome.ctinfo == "RELATED"
    assert talk.events() == ["EXP_DESTROY 2000", "NEW 2000"]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [(b"\0\1", 1), (b"\0\2", 1), (b"\0", 0), (b"\0\3", 0), (b"\1\0", 0), (b"", 0)],
)
def test_the_opcode_alone_decides(payload: bytes, expected: int) -> None:
    talk = Talk()
    talk.datagram(CLIENT, SERVER, 2000, 69, payload)
    assert len(talk.expected()) == expected


def test_every_request_of_the_connection_renews_the_expectation() -> None:
    talk = Talk()
    talk.datagram(CLIENT, SERVER, 2000, 69, REQUEST)
    talk.now += 100
    talk.events()
    talk.datagram(CLIENT, SERVER, 2000, 69, REQUEST)
    assert talk.events() == ["DESTROY 69", "EXP_DESTROY 2000", "EXP_NEW 2000", "NEW 69"]  # UDP waits 30 s only
    talk.now += 10
    talk.datagram(CLIENT, SERVER, 2000, 69, REQUEST)
    assert talk.events() == ["EXP_DESTROY 2000", "EXP_NEW 2000"]


def test_under_masquerade_the_answer_is_led_to_the_client_s_own_port() -> None:
    rules = [Masquerade("198.51.100.1", out_iface="out0", protocol="udp", ports="7000")]
    talk = Talk(engine(nat=rules))
    out = talk.datagram(CLIENT, SERVER, 2000, 69, REQUEST)
    assert packets.ports(out.packet) == (7000, 69)
    assert talk.expected() == ["198.51.100.1 7000"]
    answer = talk.datagram(SERVER, "198.51.100.1", 3456, 7000, b"\0\3\0\1data")
    assert (packets.addresses(answer.packet), packets.ports(answer.packet)) == ((SERVER, CLIENT), (3456, 2000))
    back = talk.datagram(CLIENT, SERVER, 2000, 3456, b"\0\4\0\1")
    assert back.ctinfo == "ESTABLISHED"
    assert (packets.addresses(back.packet)[0], packets.ports(back.packet)[0]) == ("198.51.100.1", 7000)


def test_ipv6_is_the_same() -> None:
    talk = Talk()
    talk.datagram("fd00:1::2", "2600::1", 2000, 69, REQUEST)
    (expectation,) = talk.engine.expectations()
    assert expectation.to_dict()["mask"] == {
        "src": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "dst": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "sport": 0,
        "dport": 65535,
    }
    assert talk.datagram("2600::1", "fd00:1::2", 99, 2000, b"\0\3").ctinfo == "RELATED"
