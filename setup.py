"""The compiled build: `CONNTRACK_COMPILE=1 pip install .` puts the hot modules through mypyc; without it, nothing.

Which modules are hot, and what is needed at run time, says pyproject.toml (tool.conntrack).  The compiler is mypyc,
part of mypy, and the machine's C compiler; what is installed needs neither, but two small packages of mypyc's.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

from setuptools import setup

COMPILE = os.environ.get("CONNTRACK_COMPILE", "0") not in ("", "0")
PROJECT = Path(__file__).with_name("pyproject.toml")
SETTINGS = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["conntrack"]
ASKING = {"egg_info", "dist_info"} & set(sys.argv)  # a front end wants to know something, and nothing built


def extensions() -> list[object]:
    """The hot modules as extension modules."""
    from mypyc.build import mypycify

    files = [f"conntrack/{name}.py" for name in SETTINGS["hot"]]
    options = ["--config-file=", "--ignore-missing-imports", "--always-true=COMPILED"]  # see wire/fields.py
    made: list[object] = mypycify([*options, *files], opt_level="3", debug_level="0")
    return made


setup(
    install_requires=[*SETTINGS["needed"], *(SETTINGS["needed-compiled"] if COMPILE else [])],
    setup_requires=["mypy>=2.4"] if COMPILE else [],
    ext_modules=extensions() if COMPILE and not ASKING else [],
)
