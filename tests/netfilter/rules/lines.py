"""Random lines of rules text, right and wrong ones, for both the tool and `load`.

One rule: pools of words and nothing else: nothing here knows which lines are right.
"""

from __future__ import annotations

from random import Random

TABLES = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
}
_NUMBERS = (
    "0",
    "1",
    "5",
    "0x10",
    "010",
    "255",
    "256",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "-1",
    "x",
    '""',
)
_PORTS = (
    *(
        "22",
        "0",
        "ssh",
        "http",
        "65535",
        "65536",
        "70000",
        "0x16",
        "010",
        "1:5",
        "5:1",
        "7:7",
        ":9",
        "9:",
        ":",
        "0:9",
    ),
    *("0:65535", "ssh:80", "1:2:3", "domain", "nosuch", "-1", '" 5"', '""', "0", "3:65535", "0:0"),
)
_ADDRESSES = {
    4: (
        *(
            "10.0.0.1",
            "10.0.0.0/8",
            "10.1.2.3/24",
            "0/0",
            "0.0.0.0/0",
            "10",
            "10.1",
            "10.0.0.1/255.255.0.0",
            "any/0",
        ),
        *(
            "10.0.0.1/33",
            "10.0.0.1/255.0.255.0",
            "256.1.1.1",
            "1.2.3.4.5",
            "1.2.3.4/0x10",
            "10.0.0.1,10.0.0.2",
            "::1",
        ),
        *("1.2.3.4,5.6.7.0/24,9.9.9.9/0", "nosuch.invalid", "1.2.3.4/", "0x0a.1.1.1", "1.2.3.4/8/9", "010.1.1.1"),
        *("1.2.3.4/32", "1.2.3.4/0"),
    ),
    6: (
        *(
            "2001:db8::1",
            "2001:DB8::/32",
            "::/0",
            "::1/128",
            "2001:db8::1/64",
            "fe80::/10",
            "any/0",
            "10.0.0.1",
            "::",
        ),
        *("2001:db8::1/129", "2001:db8::1/ffff:ffff::", "2001:db8::1/ffff:0:ffff::", "::ffff:1.2.3.4", "::1.2.3.4"),
        *("2001:db8::1,2001:db8::2", "2001:db8::1/", "1::2::3", "2001:db8::/33", "::1/1"),
    ),
}
_IFACES = ("eth0", "eth+", "+", '""', "a-very-long-name", "lo", "a+b", "eth0.100", "++")
_PROTOCOLS = (
    *(
        "tcp",
        "udp",
        "icmp",
        "sctp",
        "udplite",
        "TCP",
        "6",
        "17",
        "1",
        "132",
        "58",
        "icmpv6",
        "ipv6-icmp",
        "all",
        "0",
    ),
    *("47", "gre", "esp", "50", "253", "256", "nosuch", "dccp", "ipencap", "ip", "hopopt", "ospf", "mptcp", "ah"),
)
_MARKS = (
    "0",
    "5",
    "0x10/0xff",
    "16/16",
    "0x1ffffffff",
    "1/2/3",
    "1/",
    "x",
    "0x0/0x0",
    "-5",
    "0xffffffff",
    "7/0xffffffff",
)
_STATES = (
    *(
        "NEW",
        "new,established",
        "INVALID",
        "RELATED,ESTABLISHED",
        "UNTRACKED",
        "SNAT",
        "DNAT,NEW",
        "n",
        "NEW,",
        ",NEW",
    ),
    *("NEW,NEW", "foo", '""', "Untr"),
)
_HOSTS = {
    4: (
        "1.2.3.4",
        "10.0.0.0/8",
        "1.2.3.4/33",
        "1.2.3.4/255.0.255.0",
        "10.1",
        "::1",
        "1.2.3.4/",
        "1.2.3.4/0",
        "0x1020304",
    ),
    6: ("2001:db8::1", "2001:db8::/32", "::1/129", "::/0", "2001:db8::1/ffff::", "1.2.3.4", "::1/ffff:0:ffff::"),
}
_RANGES = {
    4: (
        "1.1.1.1-1.1.1.9",
        "1.1.1.9-1.1.1.1",
        "1.1.1.1",
        "1.1.1.1-",
        "-1.1.1.1",
        "1.1-1.2",
        "1.1.1.1-2.2.2.2-3.3.3.3",
    ),
    6: ("::1-::9", "2001:db8::1", "::1-", "1.1.1.1-1.1.1.2", "::9-::1"),
}
_TYPES = (
    *(
        "LOCAL",
        "local,broadcast",
        "UNICAST",
        "u",
        "MULTICAST",
        "ANYCAST",
        "BLACKHOLE",
        "UNREACHABLE",
        "PROHIBIT",
        "NAT",
    ),
    *("UNSPEC", "LOCAL,", "foo", '""', "XRESOLVE", "THROW", "LOCAL,UNICAST"),
)
_FLAGS = (
    *(
        "SYN SYN",
        "ALL NONE",
        "SYN,RST,ACK SYN",
        "NONE NONE",
        "NONE SYN",
        "FOO SYN",
        "syn,ack SYN",
        "ALL ALL",
        "SYN",
    ),
    *("FIN,PSH,URG FIN", '"" SYN', "ACK RST"),
)
_ICMP = (
    *("8", "8/0", "echo-request", "any", "255", "echo", "3/4", "3/4:5", "3:4", "fragmentation-needed", "redirect"),
    *("pong", "256", "8/256", "x", '""', "TOS-host-redirect", "any/0", "0", "port-unreach", "0x8/0x0", "3/"),
)
_ICMP6 = (
    *(
        "128",
        "128/0",
        "echo-request",
        "any",
        "255",
        "no-route",
        "1/4",
        "neighbor-solicitation",
        "redirect",
        "packet-too",
    ),
    *("router", "pong", "256", "x", "time-exceeded", "ttl-exceeded", "3/0"),
)
_CHUNKS = (
    *(
        "any DATA",
        "all INIT,SACK",
        "only DATA,INIT_ACK",
        "any ALL",
        "all NONE",
        "ANY data:UBe",
        "any ABORT:T",
        "any FOO",
    ),
    *("some DATA", "any DATA:X", "any I_DATA:U", "any ASCONF,PAD,RE_CONFIG", "any", "any DATA:u,ABORT:t,I_DATA:b"),
)
_MULTI = (
    *(
        "1",
        "1,2,3",
        "1:5,9",
        "ssh,http",
        "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
        "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16",
    ),
    *(
        "1:2,3:4,5:6,7:8,9:10,11:12,13:14,15",
        "1:2,3:4,5:6,7:8,9:10,11:12,13:14,15:16",
        "5:1",
        "5:5",
        "1,",
        ",1",
        "x",
    ),
)
_EXPIRE = ("5", "1:20", "20:1", ":9", "9:", "1:2:3", "x", "4294967296", '""')
_PREFIXES = (
    '"IN: "',
    "abc",
    '""',
    "a-prefix-that-is-much-longer-than-the-kernel-keeps",
    '"a \\"b\\""',
    "é",
    "#x",
    "-x",
)
_COMMENTS = (
    '"hello world"',
    "dns",
    '"it\'s"',
    '"a \\"q\\" b"',
    '""',
    '"back\\\\slash"',
    "a,b",
    "x" * 300,
    '"ä"',
    "!x",
)
_LEVELS = ("4", "7", "8", "debug", "warning", "panic", "DEBUG", "nosuch", "err", "error", "0")
_REJECTS = {
    4: (
        *(
            "icmp-port-unreachable",
            "icmp-net-unreach",
            "tcp-reset",
            "tcp-rst",
            "host-unreach",
            "admin-prohib",
            "icmp",
        ),
        *("icmp-proto-unreachable", "foo", '""', "icmp-host-prohib", "echo-reply"),
    ),
    6: (
        "icmp6-no-route",
        "adm-prohibited",
        "tcp-reset",
        "port-unreach",
        "icmp6-",
        "foo",
        "policy-fail",
        "reject-route",
    ),
}
_ZONES = ("5", "0", "65535", "65536", "mark", "MARK", "x")
_EVENTS = ("new", "new,destroy", "assured,new,natseqinfo", "foo", '""', "new,new", "secmark", "new,")
_HELPERS = ("ftp", "tftp", "nosuch", '""', "FTP")
_TO = {
    4: (
        *(
            "1.2.3.4",
            "1.2.3.4-1.2.3.9",
            "1.2.3.4:80",
            "1.2.3.4:80-90",
            ":80",
            ":80-90/1000",
            "1.2.3.4-1.2.3.9:1-5",
            "::1",
        ),
        *(
            "1.2.3.4:90-80",
            "1.2.3.4:ssh",
            "1.2.3.4:ssh-90",
            "1.2.3.4:1:2",
            "1.2.3.4:",
            "1.2.3.4-",
            "[1.2.3.4]:5",
            "10.1",
        ),
        *(
            "1.2.3.4:5-6/0",
            "1.2.3.4:70000",
            "1.2.3.9-1.2.3.4",
            "1.2.3.4:5-5",
            "1.2.3.4:0",
            "1.2.3.04",
            "1.2.3.4:5x",
            '""',
        ),
        *("1.2.3.4:5-6/7", "1.2.3.4:5/7", ":0x10"),
    ),
    6: (
        *(
            "2001:db8::1",
            "2001:db8::1-2001:db8::9",
            "[2001:db8::1]:80",
            "[2001:db8::1-2001:db8::9]:80-90",
            ":80",
            "[]:80",
        ),
        *(
            "[2001:db8::1]",
            "[2001:db8::1",
            "1.2.3.4",
            "[2001:db8::1]:x",
            "2001:db8::1:80",
            "[2001:db8::1]:80-90/5",
            "::1-",
        ),
        *("[::1]-[::2]:5", "::", ":"),
    ),
}
_NETS = {
    4: (
        "10.0.0.0/24",
        "10.0.0.5",
        "10.0.0.5/24",
        "10.0.0.0/255.255.0.0",
        "10.0.0.0/0",
        "x",
        "10.0.0.0/255.0.255.0",
    ),
    6: ("2001:db8:1::/64", "2001:db8::1", "::/0", "2001:db8::1/129", "2001:db8::/ffff:ffff::", "10.0.0.0/8"),
}
_MSS = ("1400", "0", "65515", "65516", "65495", "65496", "x")


def _matches(family: int) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """Options by match: (option, words that may stand behind it; () for none)."""
    ports = [(f"--{option}", _PORTS) for option in ("sport", "dport", "source-port", "destination-port")]
    return {
        "tcp": [*ports, ("--syn", ()), ("--tcp-flags", _FLAGS), ("--tcp-option", _NUMBERS)],
        "udp": ports,
        "sctp": [*ports, ("--chunk-types", _CHUNKS)],
        "icmp": [("--icmp-type", _ICMP)],
        "icmp6": [("--icmpv6-type", _ICMP6)],
        "icmpv6": [("--icmpv6-type", _ICMP6)],
        "multiport": [
            (f"--{option}", _MULTI) for option in ("sports", "dports", "ports", "source-ports", "destination-ports")
        ],
        "conntrack": [
            ("--ctstate", _STATES),
            ("--ctproto", _PROTOCOLS),
            *((f"--{option}", _HOSTS[family]) for option in ("ctorigsrc", "ctorigdst", "ctreplsrc", "ctrepldst")),
            *((f"--ct{way}{end}port", _PORTS) for way in ("orig", "repl") for end in ("src", "dst")),
            (
                "--ctstatus",
                ("NONE", "ASSURED", "SEEN_REPLY,EXPECTED", "confirmed", "a", "foo", "NONE,ASSURED", '""'),
            ),
            ("--ctexpire", _EXPIRE),
            ("--ctdir", ("ORIGINAL", "reply", "REPL", "foo")),
        ],
        "state": [("--state", _STATES)],
        "mark": [("--mark", _MARKS)],
        "connmark": [("--mark", _MARKS)],
        "comment": [("--comment", _COMMENTS)],
        "iprange": [("--src-range", _RANGES[family]), ("--dst-range", _RANGES[family])],
        "addrtype": [
            ("--src-type", _TYPES),
            ("--dst-type", _TYPES),
            ("--limit-iface-in", ()),
            ("--limit-iface-out", ()),
        ],
        "udplite": [],
        "nosuch": [],
    }


def _targets(family: int) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    marks = [(f"--{option}", _MARKS) for option in ("set-mark", "set-xmark", "and-mark", "or-mark", "xor-mark")]
    flags = [("--random", ()), ("--random-fully", ()), ("--persistent", ())]
    return {
        "ACCEPT": [],
        "DROP": [],
        "RETURN": [],
        "USER": [],
        "REJECT": [("--reject-with", _REJECTS[family])],
        "LOG": [
            ("--log-prefix", _PREFIXES),
            ("--log-level", _LEVELS),
            *(
                (f"--log-{option}", ())
                for option in ("tcp-sequence", "tcp-options", "ip-options", "uid", "macdecode")
            ),
        ],
        "MARK": marks,
        "CONNMARK": [
            *marks,
            ("--save-mark", ()),
            ("--restore-mark", ()),
            ("--mask", _MARKS),
            ("--nfmask", _MARKS),
            ("--ctmask", _MARKS),
            ("--left-shift-mark", ("0", "5", "32", "33")),
            ("--right-shift-mark", ("0", "5", "32", "33")),
        ],
        "CT": [
            ("--notrack", ()),
            ("--helper", _HELPERS),
            ("--zone", _ZONES),
            ("--zone-orig", _ZONES),
            ("--zone-reply", _ZONES),
            ("--ctevents", _EVENTS),
            ("--expevents", _EVENTS),
            ("--timeout", ("nosuch",)),
        ],
        "NOTRACK": [],
        "SNAT": [("--to-source", _TO[family]), ("--to", _TO[family]), *flags],
        "DNAT": [("--to-destination", _TO[family]), *flags],
        "MASQUERADE": [("--to-ports", _PORTS), ("--to-ports", ("1-5", "1000-2000", "5-1", "80")), *flags],
        "REDIRECT": [("--to-ports", ("3128", "1-5", "1:5", "ssh", "5-1", "1-5/3")), *flags],
        "NETMAP": [("--to", _NETS[family])],
        "TCPMSS": [("--set-mss", _MSS), ("--clamp-mss-to-pmtu", ())],
        "TTL": [(f"--ttl-{mode}", _NUMBERS) for mode in ("set", "dec", "inc")],
        "HL": [(f"--hl-{mode}", _NUMBERS) for mode in ("set", "dec", "inc")],
    }


_NATURAL = {"tcp": "tcp", "udp": "udp", "sctp": "sctp", "icmp": "icmp", "icmp6": "58", "icmpv6": "ipv6-icmp"}
_AT_HOME = {
    **dict.fromkeys(("SNAT", "DNAT", "MASQUERADE", "REDIRECT", "NETMAP"), "nat"),
    **dict.fromkeys(("CT", "NOTRACK"), "raw"),
    **dict.fromkeys(("TTL", "HL"), "mangle"),
    "REJECT": "filter",
}


def random_text(random: Random, family: int) -> str:
    """One table with one line (and a user chain USER, if the line names it)."""
    targets = _targets(family)
    target = random.choice(list(targets))
    table = _AT_HOME.get(target, random.choice(list(TABLES)))
    if random.random() < 0.05:
        table = random.choice(list(TABLES))
    chain = random.choice(TABLES[table])
    if random.random() < 0.1:
        chain = "USER"
    words: list[str] = []
    matches = _matches(family)
    match = random.choice(list(matches))
    parts: list[str] = []
    natural = _NATURAL.get(match)
    if natural and random.random() < 0.9:
        protocol = natural
    elif match == "multiport" or random.random() < 0.4:
        protocol = random.choice(("tcp", "udp", "tcp", "sctp", random.choice(_PROTOCOLS)))
    else:
        protocol = ""
    if protocol:
        parts.append(maybe_not(random, 0.06) + f"-p {protocol}")
    if random.random() < 0.75:
        options = matches[match]
        chosen = random.sample(options, min(len(options), random.choice((0, 1, 1, 1, 2, 2, 3))))
        text = "" if natural and random.random() < 0.4 else f"-m {match}"
        for option, values in chosen:
            text += f" {maybe_not(random, 0.2)}{option}" + (f" {random.choice(values)}" if values else "")
        parts.append(text.strip())
    for letter, pool, share in (
        ("-s", _ADDRESSES[family], 0.15),
        ("-d", _ADDRESSES[family], 0.15),
        ("-i", _IFACES, 0.1),
        ("-o", _IFACES, 0.1),
    ):
        if random.random() < share:
            parts.append(f"{maybe_not(random, 0.25)}{letter} {random.choice(pool)}")
    if random.random() < 0.04:
        parts.append(maybe_not(random, 0.3) + "-f")
    if random.random() < 0.85:
        options = targets[target]
        chosen = random.sample(options, min(len(options), random.choice((0, 1, 1, 1, 1, 2))))
        text = f"{random.choice(('-j', '-j', '-j', '--jump', '-g')) if target == 'USER' else '-j'} {target}"
        for option, values in chosen:
            text += f" {maybe_not(random, 0.03)}{option}" + (f" {random.choice(values)}" if values else "")
        parts.append(text)
    if random.random() < 0.1:
        random.shuffle(parts)
    words = [part for part in parts if part]
    line = f"-A {chain} {' '.join(words)}"
    needs = chain == "USER" or " USER" in line
    return f"*{table}\n{':USER - [0:0]' + chr(10) if needs else ''}{line}\nCOMMIT\n"


def maybe_not(random: Random, share: float) -> str:
    return "! " if random.random() < share else ""


_RULES = (
    *("", "-p tcp", "-p udp", "-j ACCEPT", "-j X", "-g Y", "-j Y", "-s 1.2.3.4,5.6.7.8", "-j DROP", "-j RETURN"),
    *(
        "-p tcp -j REJECT",
        "-j Z",
        "-p tcp --syn -j TCPMSS --clamp-mss-to-pmtu",
        "-c 3 40",
        "-j INPUT",
        "-j SNAT --to 1.1.1.1",
    ),
    *("-m addrtype --src-type LOCAL --limit-iface-in", "-j MASQUERADE", "-p tcp -j REDIRECT", "-i eth0", "-o eth0"),
)


def random_session(random: Random) -> str:
    """A table with several commands: chains made, filled, emptied, jumped to, deleted."""
    table = random.choice(("filter", "filter", "filter", "nat", "mangle", "raw"))
    built_in = TABLES[table]
    lines = []
    for _ in range(random.choice((1, 2, 3, 4, 5, 6, 8, 12))):
        chain = random.choice((*built_in, "X", "Y", "X", "Y", "Z"))
        rule = random.choice(_RULES)
        number = random.choice(("", "", "1", "2", "3", "0"))
        lines.append(
            random.choice(
                (
                    f"-A {chain} {rule}",
                    f"-A {chain} {rule}",
                    f"-A {chain} {rule}",
                    f"-I {chain} {number} {rule}",
                    f"-D {chain} {rule}",
                    f"-D {chain} {number}",
                    f"-C {chain} {rule}",
                    f"-N {random.choice('XYZ')}",
                    f"-N {random.choice('XYZ')}",
                    f":{chain} - [0:0]",
                    f":{chain} {random.choice(('ACCEPT', 'DROP', '-'))} [{random.choice(('0:0', '7:420', '5'))}]",
                    f"-P {chain} {random.choice(('ACCEPT', 'DROP', 'RETURN'))}",
                    f"-F {random.choice((chain, ''))}",
                    f"-X {random.choice((chain, chain, ''))}",
                    f"-Z {random.choice((chain, ''))} {number}",
                    f"[{random.choice(('3:180', '0:0', '1'))}] -A {chain} {rule}",
                    f"-6 -A {chain}",
                    f"-A {chain} -6",
                )
            )
        )
    made = [f":{name} - [0:0]" for name in "XYZ" if random.random() < 0.7]
    return "\n".join([f"*{table}", *made, *lines, "COMMIT", ""])


def random_rule(random: Random, family: int, chain: str) -> str:
    """Conditions that stateless matches have, and something that shows whether they held."""
    options = _matches(family)
    names = [
        "tcp",
        "tcp",
        "udp",
        "sctp",
        "sctp",
        "multiport",
        "icmp" if family == 4 else "icmp6",
        "iprange",
        "mark",
    ]
    match = random.choice([*names, "addrtype", "", "comment"])
    protocol = _NATURAL.get(match) or random.choice(("", "", "tcp", "udp", "136", "47", "59", "51", "ah", "253"))
    if match == "multiport":
        protocol = random.choice(("tcp", "udp", "136", "sctp"))
    parts = [maybe_not(random, 0.08) + f"-p {protocol}"] if protocol else []
    if match:
        chosen = random.sample(options[match], min(len(options[match]), random.choice((0, 1, 1, 1, 2, 2, 3))))
        parts.append(f"-m {match}")
        parts += [
            f"{maybe_not(random, 0.25)}{option}" + (f" {random.choice(values)}" if values else "")
            for option, values in chosen
        ]
    for letter, pool in (
        (
            "-s",
            ("10.0.0.0/24", "192.0.2.7", "10.0.0.3/255.255.0.255") if family == 4 else ("fd00:1::/64", "::7/::ff"),
        ),
        (
            "-d",
            ("10.0.0.1", "224.0.0.0/4", "10.0.0.0/9")
            if family == 4
            else ("fd00:1::1", "ff00::/8", "2001:db8::/30"),
        ),
        ("-i", ("in0", "in+", "out0", "i+", "in0+", "lo")),
        ("-o", ("out0", "+", "x+") if chain != "PREROUTING" else ()),
    ):
        if pool and random.random() < 0.12:
            parts.append(f"{maybe_not(random, 0.3)}{letter} {random.choice(pool)}")
    if family == 4 and random.random() < 0.06:
        parts.append(maybe_not(random, 0.5) + "-f")
    jumps = {"PREROUTING": ("-j A", "-j B", "-g A", "-g B"), "A": ("-j B", "-g B"), "B": ()}[chain]
    decisions = ("-j ACCEPT", "-j DROP", "-j RETURN", "-j MARK --set-mark 5", "-j MARK --xor-mark 0x10", *jumps)
    parts.append(random.choice(decisions) if random.random() < 0.35 else "")
    return " ".join(part for part in parts if part)
