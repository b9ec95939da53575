"""The house itself: what may be imported where, and what every module owes its reader."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "conntrack").rglob("*.py"))


def test_importing_the_library_loads_none_of_the_command_lines_libraries() -> None:
    code = "import sys, conntrack; print(sorted({'typer', 'rich', 'click', 'scapy'} & set(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_opens_with_its_essay(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text and text.split("\n")[0].rstrip().endswith((".", "!", ":", "…")), path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_reads_a_clock_or_draws_by_itself(path: Path) -> None:
    if "drivers" in path.parts or "cli" in path.parts:
        return
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    assert not imported & {"time", "random", "secrets", "socket", "threading", "os"}, path


@pytest.mark.interpreted("compiled classes have no docstrings")
def test_public_names_are_few_and_documented() -> None:
    import conntrack

    assert len(conntrack.__all__) <= 14
    for name in conntrack.__all__:
        if name != "__version__":
            assert getattr(conntrack, name).__doc__, name


def test_quick_start_holds_exactly_two_one_line_commands() -> None:
    text = (ROOT / "README.md").read_text()
    section = text.split("## Quick start", 1)[1].split("\n## ", 1)[0]
    blocks = [block.split("```")[0] for block in section.split("```sh\n")[1:]]
    assert len(blocks) == 2
    assert all(len(block.strip().splitlines()) == 1 for block in blocks)
    assert "replay captures/" in blocks[0] and "pytest" in blocks[1]
