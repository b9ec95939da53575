"""Where packets come from and go to: the only place with files, sockets, devices and the clock.

A driver yields `(now, bytes)` and takes `(now, bytes)`; what else it knows of a packet (its timestamp's own
digits, its link header, its options) travels around the engine, not through it.

    capture     capture files whatever their format: `open_capture`, `create_capture`
    pcap        the classic format, and `read_pcap`, the short way to the packets of any capture
    pcapng      its successor, with several interfaces and sections
    vantage     what a capture from one side of a NAT needs
    replay      a capture through an engine
    workers     a capture through several, one a process
"""
