"""Random rules that ask for connections, right ones only.

One rule: nothing here knows what they will match.
"""

from __future__ import annotations

from random import Random

from .lines import maybe_not


def random_stateful(random: Random) -> str:
    """IPv4 rules in four tables that ask for connections and change what is remembered of them."""
    lines = ["*raw", ":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
    for _ in range(random.choice((0, 1, 2, 3))):
        action = random.choice(
            (
                *(
                    "CT --zone 5",
                    "CT --zone-orig 3",
                    "CT --zone mark",
                    "CT --notrack",
                    "NOTRACK",
                    "CT --ctevents new",
                ),
                *("MARK --set-mark 5", "CT --notrack --zone 3"),
            )
        )
        lines.append(f"-A PREROUTING {random.choice(_PACKETS)} -j {action}")
    for _ in range(3):
        lines.append(f"-A PREROUTING {_condition(random)}")
    lines += ["COMMIT", "*mangle"]
    for _ in range(14):
        chain = random.choice(("PREROUTING", "PREROUTING", "FORWARD", "POSTROUTING"))
        action = random.choice(
            (
                *(
                    "CONNMARK --set-mark 5",
                    "CONNMARK --set-xmark 0x10/0xf0",
                    "CONNMARK --save-mark",
                    "MARK --set-mark 7",
                ),
                *(
                    "CONNMARK --restore-mark",
                    "CONNMARK --or-mark 8",
                    "CONNMARK --xor-mark 3",
                    "CONNMARK --and-mark 6",
                ),
                *(
                    "CONNMARK --save-mark --nfmask 0xf --ctmask 0xff",
                    "CONNMARK --restore-mark --mask 0xf0",
                    "ACCEPT",
                ),
                *("CONNMARK --set-mark 1 --left-shift-mark 3", "MARK --xor-mark 0x20"),
            )
        )
        condition = _condition(random)
        if chain == "POSTROUTING":
            condition = condition.replace("-i in0", "-o out0").replace("-i out0", "")
        lines.append(f"-A {chain} {condition}" + (f" -j {action}" if random.random() < 0.5 else ""))
    if random.random() < 0.5:
        lines += ["COMMIT", "*nat"]
        for _ in range(2):
            lines.append(
                random.choice(
                    (
                        "-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.9",
                        "-A PREROUTING -p udp -j DNAT --to-destination 198.51.100.8-198.51.100.12 --persistent",
                        "-A PREROUTING -d 192.0.2.0/24 -j NETMAP --to 198.51.100.0/24",
                        "-A POSTROUTING -o out0 -j MASQUERADE",
                        "-A POSTROUTING -p udp -o out0 -j SNAT --to-source 198.51.100.77",
                        "-A PREROUTING -m mark --mark 7 -j ACCEPT",
                        "-A POSTROUTING -m connmark --mark 5 -j RETURN",
                        "-A INPUT -p icmp -j SNAT --to-source 10.0.0.99",
                    )
                )
            )
    lines += ["COMMIT", "*filter"]
    for _ in range(4):
        action = random.choice(("", "", "", " -j DROP", " -j ACCEPT"))
        lines.append(f"-A FORWARD {_condition(random)}{action}")
    return "\n".join([*lines, "COMMIT", ""])


_PACKETS = (
    "",
    "-p tcp",
    "-p udp",
    "-p icmp",
    "-p udp --dport 53",
    "-i in0",
    "-s 10.0.0.3",
    "-p tcp --dport 80",
    "-i out0",
)


_STATES = ("NEW", "ESTABLISHED", "INVALID", "UNTRACKED")


def _condition(random: Random) -> str:
    condition = random.choice(
        (
            *("--ctstate NEW", "--ctstate ESTABLISHED", "--ctstate RELATED,ESTABLISHED", "--ctstate INVALID"),
            *("--ctstate UNTRACKED", "--ctstate SNAT", "--ctstate DNAT", "--ctstate NEW --ctorigsrc 10.0.0.2"),
            *(
                "--ctorigsrc 10.0.0.0/24",
                "--ctorigdst 192.0.2.1",
                "--ctreplsrc 198.51.100.0/24",
                "--ctrepldst 10.0.0.3",
            ),
            *(
                "--ctproto 6",
                "--ctproto 17",
                "--ctorigsrcport 1000:2000",
                "--ctorigdstport 53",
                "--ctreplsrcport 80",
            ),
            *("--ctrepldstport 1000:1001", "--ctstatus CONFIRMED", "--ctstatus ASSURED", "--ctstatus SEEN_REPLY"),
            *("--ctstatus NONE", "--ctexpire 0", "--ctexpire 20:50", "--ctexpire 100:125", "--ctexpire 1:"),
            *("--ctdir ORIGINAL", "--ctdir REPLY", "--ctstate INVALID --ctorigsrc 1.2.3.4", "--ctexpire 400000:"),
            *("--ctstate INVALID,UNTRACKED --ctproto 99", "--ctorigdst 192.0.2.1/255.0.255.0"),
        )
    )
    if " --ctstate" not in condition and condition != "--ctdir ORIGINAL" and "ctdir" not in condition:
        condition = maybe_not(random, 0.25) + condition
    match = random.choice(
        (
            f"-m conntrack {condition}",
            f"-m conntrack {condition}",
            f"-m conntrack {condition}",
            f"-m connmark {maybe_not(random, 0.3)}--mark {random.choice(('5', '0', '0x10/0xf0', '8/8'))}",
            f"-m mark {maybe_not(random, 0.3)}--mark {random.choice(('5', '0', '7', '0x20/0x20'))}",
            f"-m state {maybe_not(random, 0.3)}--state {random.choice(_STATES)}",
        )
    )
    return f"{random.choice(_PACKETS) if random.random() < 0.3 else ''} {match}".strip()
