"""Both forms of `wire.fields` read and write the same octets: struct's, and the compiler's.

Interpreted, the compiler's form runs as plain Python on librt's functions; in a compiled build it is what runs.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from struct import Struct
from types import ModuleType

import pytest

from conntrack.wire import checksum
from conntrack.wire import fields as in_use

native = pytest.importorskip("conntrack.wire.fields_native", reason="needs librt, which comes with mypy")


def _with_struct() -> ModuleType:
    """`fields` as an interpreter has it, also where this build is compiled."""
    if not in_use.COMPILED:
        return in_use
    source = (Path(checksum.__file__).parent / "fields.py").read_text(encoding="utf-8")
    assert "COMPILED: Final = " in source
    module = ModuleType("conntrack.wire.fields_with_struct")
    module.__package__ = "conntrack.wire"
    source = source.replace("COMPILED: Final = ", "COMPILED: Final = False and ")
    exec(compile(source, "fields.py", "exec"), module.__dict__)
    return module


plain = _with_struct()
RANDOM = Random(4)
EDGES = (0, 1, 0x7F, 0x80, 0xFF)


def octets(size: int) -> bytes:
    """Half of them from the edges, half anything."""
    return bytes(RANDOM.choice((RANDOM.choice(EDGES), RANDOM.randrange(256))) for _ in range(size))


@pytest.mark.parametrize("name", ["segment4", "segment6", "record_le", "record_be"])
def test_both_forms_read_the_same_fields(name: str) -> None:
    for _ in range(300):
        data, at = octets(120), RANDOM.randrange(60)
        assert tuple(getattr(native, name)(data, at)) == getattr(plain, name)(data, at)


@pytest.mark.parametrize("name", ["segment4", "segment6", "record_le", "record_be"])
def test_a_read_beyond_the_octets_raises_in_both_forms(name: str) -> None:
    for size in range(28):
        with pytest.raises(Exception) as struct_form:
            getattr(plain, name)(bytes(size), 0)
        assert struct_form.type.__name__ == "error"
        with pytest.raises(IndexError):
            getattr(native, name)(bytes(size), 0)


@pytest.mark.parametrize("size", [12, 36])
def test_both_forms_write_the_same_headers(size: int) -> None:
    family = "4" if size == 12 else "6"
    for _ in range(200):
        data, key, at = octets(100), octets(size), RANDOM.randrange(20)
        total, unit = RANDOM.randrange(65536), RANDOM.choice((0, 1, 0x7FFF, 0x8000, 0xFFFF))
        written = []
        for form in (plain, native):
            ends = getattr(form, f"ends{family}")(key)
            sum_ = (total,) if family == "4" else ()
            head, echo, number = form.changeable(data), form.changeable(data), form.changeable(data)
            getattr(form, f"put_head{family}")(head, at, *sum_, *ends)
            getattr(form, f"put_echo{family}")(echo, at, *sum_, *ends[:2])
            form.put16(number, at, unit)
            written.append([bytes(form.part(out, 0, len(data))) for out in (head, echo, number)])
        assert written[0] == written[1]
        assert written[0][2][at : at + 2] == unit.to_bytes(2, "big")


@pytest.mark.parametrize(
    ("name", "layout"),
    [("tcp", "<QqQqQ24sHHIIIIBBIIIIBBIIIHBBBBB"), ("udp", "<QqQqQ24sHHQ"), ("icmp", "<QqQqQ24sHH")],
)
def test_both_forms_remember_the_same_and_lose_nothing(name: str, layout: str) -> None:
    for _ in range(300):
        record = bytearray(octets(Struct(layout).size))
        for word in range(0, 40, 8):  # numbers of 64 bits stay below 2**63, as times and counters do
            record[word + 7] &= 0x7F
        if name == "udp":
            record[-1] &= 0x7F
        given = bytes(record)
        found = tuple(getattr(native, f"{name}_record")(given))
        assert found == getattr(plain, f"{name}_record")(given) == Struct(layout).unpack(given)
        assert getattr(native, f"pack_{name}")(*found) == getattr(plain, f"pack_{name}")(*found) == given


def test_both_forms_sum_words_as_rfc_1071_does() -> None:
    for size in [*range(40), 1400, 1499, 9000]:
        data, at = octets(size + 30), RANDOM.randrange(30)
        expected = checksum.ones_sum(data[at : at + size]) % 0xFFFF
        assert native.words(data, at, at + size) == plain.words(data, at, at + size) == expected
    assert native.words(b"\xff" * 65535, 0, 65535) == plain.words(b"\xff" * 65535, 0, 65535) == 0xFF00


def test_what_is_in_use_is_one_of_the_two() -> None:
    assert (in_use.segment4 is native.segment4) == in_use.COMPILED
