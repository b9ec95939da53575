"""Bytes and fields: everything that knows what a packet looks like, and nothing that remembers one.

No module here knows a connection, a clock or a file.  `packet.parse` turns any bytes into a `Packet`
whose accessors cannot fail; `checksum` holds the sums; `link` finds the IP header behind a link header;
`reassembly` is the one place with a memory, that of fragments that wait for their rest.
"""
