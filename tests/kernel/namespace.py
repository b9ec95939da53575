"""A network namespace of one's own, and what one does in it: visit it, open devices, set sysctls, run programs.

One rule: a thread that enters a namespace comes home again.  Devices and sockets opened during the visit stay in
the namespace and work from outside; it lives as long as its descriptor, or something opened in it, does.

Sources: namespaces(7), setns(2), Documentation/networking/tuntap.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000  # sched.h
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # if_tun.h
_LIBC = ctypes.CDLL(None, use_errno=True)
_BIGGEST = 65536  # octets of an IP packet, and one


@contextlib.contextmanager
def new_namespace() -> Iterator[int]:
    """Make a network namespace, be in it for a while; yields its descriptor, which keeps it alive."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
        try:
            yield os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            _LIBC.setns(home, _CLONE_NEWNET)
    finally:
        os.close(home)


@contextlib.contextmanager
def visit(namespace: int) -> Iterator[None]:
    """Move this thread into a namespace for a while."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(namespace, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        _LIBC.setns(home, _CLONE_NEWNET)
        os.close(home)


def open_tun(name: str) -> int:
    """A TUN device of the present namespace: what is written arrives, what leaves can be read."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


def drain(fd: int) -> Iterator[bytes]:
    """Everything that waits to be read from a TUN device."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield os.read(fd, _BIGGEST)


def sysctl_path(name: str) -> str:
    """The file of a sysctl; a dot inside a device name is written as '/' in the name, as sysctl(8) has it."""
    return "/proc/sys/" + name.replace(".", "/")


def write_sysctl(name: str, value: int | str) -> None:
    """Set a sysctl of the present namespace by its full name."""
    with open(sysctl_path(name), "w") as file:
        file.write(str(value))


def run(*command: str, text: str = "") -> str:
    """Run a program in the present namespace with `text` as its input; what it printed.  OSError if it fails."""
    done = subprocess.run(command, input=text, text=True, capture_output=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
