"""Translation: which address and port, decided once per connection, then the rewriting of every packet.

    rules.py    what users write: Snat, Dnat, Masquerade, Redirect, Netmap
    ranges.py   NatRange, the one value all of them (and the null binding) reduce to
    choose.py   which tuple within the range: kept, shared with an earlier mapping, hashed, or searched
    hook.py     the two together: what NAT does to a packet at a hook
    rewrite.py  the octets: addresses, ports, identifiers, checksums, the packet inside an ICMP error

After a rewrite only the promised fields differ, and every checksum that was right is right.
"""
