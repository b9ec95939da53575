"""Which helpers there are, by name."""

from __future__ import annotations

from typing import Final

from . import Helper, ftp, tftp

HELPERS: Final[dict[str, Helper]] = {helper.name: helper for helper in (ftp.HELPER, tftp.HELPER)}
