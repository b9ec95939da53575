"""Lines whose fate at the tool is worth knowing, by hand: each a corner of the grammar.

A ¶ stands for a line end, a ␣ for a blank at the end.  `record.py` writes down what the tool makes of them.
"""

from __future__ import annotations

FILTER = r"""
-A FORWARD -p udp --dport 70000
-A FORWARD -p udp --dport -5
-A FORWARD -p udp --dport +5
-A FORWARD -p udp --dport 0x10
-A FORWARD -p udp --dport " 5"
-A FORWARD -p udp --dport 010
-A FORWARD -p tcp --dport 010
-A FORWARD -p tcp --dport " 5"
-A FORWARD -p udp --dport 9:5
-A FORWARD -p udp ! --dport 0:65535
-A FORWARD -p udp ! --dport :7
-A FORWARD -p tcp ! --sport 5 ! --dport 6
-A FORWARD -p tcp --tcp-flags NONE SYN
-A FORWARD -p tcp -m tcp --sport 1 -m tcp --dport 2
-A FORWARD -m multiport --dports 80 -p tcp
-A FORWARD -p mptcp
-A FORWARD ! -p tcp -m tcp --dport 5
-A FORWARD ! -p tcp -m tcp
-A FORWARD -p udplite -m udp --dport 5
-A FORWARD -p udplite --dport 5
-A FORWARD -j X¶:X - [0:0]
:X - [0:0]¶-E X Y
-N X¶-A X -j X
-N X¶-N Y¶-A X -j Y¶-A Y -j X
-N X¶-A FORWARD -j X¶-A X -j X
-N X¶-A X -j INPUT
-A FORWARD -g ACCEPT
-A FORWARD -j QUEUE
:FORWARD - [0:0]
:FORWARD FOO [0:0]
:PREROUTING ACCEPT [0:0]
:FORWARD DROP
:X FOO [0:0]
-C FORWARD -p tcp
-P FORWARD RETURN
-P FORWARD DROP
-X FORWARD
-A INPUT¶-X INPUT
-A INPUT¶-X
-P INPUT DROP¶-X INPUT
-N X¶-A X¶-X X
-N X¶-A INPUT -j X¶-X X
-N X¶-A X¶-X
-N X¶-X X
-F X
-F
-A INPUT¶-F
-A INPUT¶-F INPUT
-Z
-Z INPUT
:INPUT DROP [0:0]¶-Z
-A INPUT -c 5 6¶-Z
-D INPUT 1
-A INPUT¶-D INPUT 1
-A INPUT¶-D INPUT 2
-A INPUT¶-D INPUT
-I INPUT 2
-A INPUT -p tcp¶-I INPUT 2 -p udp
-A INPUT -p tcp¶-R INPUT 1 -p udp
-4 -A INPUT
-6 -A INPUT
-A INPUT -6
-A INPUT -s 1.2.3.4,5.6.7.8 -d 1.1.1.1,2.2.2.2
-I INPUT -s 1.2.3.4,5.6.7.8
-A INPUT -s 1.2.3.4,5.6.7.8¶-D INPUT -s 1.2.3.4,5.6.7.8
-A INPUT ! -s 1.2.3.4,5.6.7.8
-A INPUT -c 5 6
-c 5,6 -A INPUT
[7:8] -A INPUT -c 5 6
-A INPUT --set-counters 5 7 -j ACCEPT
-A INPUT -c 5
-A INPUT -c x 5
-A INPUT -c 5x 6y
-A INPUT -c -5 6
-A INPUT -s 10.1
-A INPUT -m conntrack --ctorigsrc 10.1
-A INPUT -m conntrack --ctorigsrc 1.2.3.4/33
-t nat -A INPUT
-A INPUT -w
-A INPUT -n
-A INPUT -v
-A INPUT -x
--append INPUT --jum ACCEPT
--app INPUT --source 1.2.3.4 --s 1.1.1.1
-A INPUT -pudp --dp 5 -jACCEPT
-AINPUT -fj ACCEPT
-A INPUT --protocol=tcp --dport=22
-A INPUT -p tcp --dport=22
-A INPUT -j ACCEPT --
-A INPUT -- -j ACCEPT
-A INPUT -m tcp -p tcp --foo
-A INPUT -p tcp -m tcp --dport 5 --icmp-type 3
-A INPUT -p icmp --icmp-type e
-A INPUT -p icmp --icmp-type echo-req
-A INPUT -p icmp --icmp-type 255/3
-A INPUT ! -p icmp --icmp-type 3
-A INPUT ! -p all
-A INPUT -m conntrack --ctstate n
-A INPUT -m conntrack ! --ctdir ORIGINAL
-A INPUT -m conntrack ! --ctstatus NONE --ctproto 0
-A INPUT -m conntrack --ctproto TCP
-A INPUT -m conntrack --ctexpire ""
-A INPUT -m conntrack --ctorigsrcport 7:0
-A INPUT -m comment ! --comment x
-A INPUT -m addrtype --src-type LOCAL --limit-iface-out
-N X¶-A OUTPUT -j X¶-A X -m addrtype --src-type LOCAL --limit-iface-in
-A INPUT -m iprange --src-range 1.1-1.2
-A INPUT -p tcp -m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14:15
-A INPUT -p tcp -m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15:16
-A INPUT -p sctp --chunk-types any I_DATA:u
-A INPUT -p sctp --chunk-types any DATA:UuB
-A INPUT -p tcp --tcp-flags SYN -j ACCEPT
-A INPUT -p tcp ! --syn -m tcp --tcp-option 3 ! --sport 0:9
-A INPUT -i ""
-A INPUT -i abcdefghijklmnop
-A INPUT -i abcdefghijklmn+
-A INPUT ! -i +
-A INPUT -i ++
-A INPUT ! -j ACCEPT
-A INPUT !
-A INPUT ! ! -f
! -A INPUT
-A INPUT ! -m tcp
-A INPUT -j
-A INPUT -j ""
-N abcdefghijklmnopqrstuvwxyzab
-N abcdefghijklmnopqrstuvwxyzabc
-N tcp
-N standard
-N TTL
-N HL
-N ""
-N -x
-N X -N Y
-N X -j ACCEPT
-N X¶-N X
-N X¶:X - [0:0]
-N INPUT
-D INPUT 0
-I INPUT x
[1:2] -A INPUT
[1:2-A INPUT
[12] -A INPUT
[a:b] -A INPUT
 -A INPUT
  # x
#x
COMMIT␣
-A INPUT "-j" "ACCEPT"
-A INPUT -m comment --comment "a"b
-A INPUT -m comment --comment a"b"
-A INPUT -m comment --comment "a\
-A INPUT -j CONNMARK --save-mark --left-shift-mark 32
-A INPUT -j CONNMARK --save-mark --left-shift-mark 31
"""

NAT = r"""
-A POSTROUTING -p tcp -j MASQUERADE --to-ports 1-5/3
-A PREROUTING -p tcp -j REDIRECT --to-ports 1-5/3
-A PREROUTING -p tcp -j DNAT --to 1.1.1.1:1-5/3
-A PREROUTING -j DNAT --to 1.1.1.1:5
-A PREROUTING -p icmp -j DNAT --to 1.1.1.1:5
-A POSTROUTING -j DNAT --to 1.1.1.1
-A INPUT -j SNAT --to 1.1.1.1
-A INPUT -j MASQUERADE
-A PREROUTING -j DROP
-P PREROUTING DROP
:PREROUTING DROP [0:0]
-N X¶-A X -j MASQUERADE
-N X¶-A X -j MASQUERADE¶-A PREROUTING -j X
-A FORWARD
"""

CORNERS = [("filter", line.replace("¶", "\n").replace("␣", " ")) for line in FILTER.splitlines()[1:]] + [
    ("nat", line.replace("¶", "\n").replace("␣", " ")) for line in NAT.splitlines()[1:]
]
