"""Makes what lies beside this file (`packets`, `script`, `draws`, `model`) importable from every folder.

On a compiled build it skips the tests that are marked `interpreted`.
"""

import sys
from pathlib import Path

import pytest

from conntrack.wire.fields import COMPILED

sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if COMPILED:
        for item in items:
            for mark in item.iter_markers("interpreted"):
                item.add_marker(pytest.mark.skip(reason=mark.args[0]))
