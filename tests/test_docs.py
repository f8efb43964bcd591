"""The pages: links lead somewhere, and the commands they name can be run as they are written."""

from __future__ import annotations

import ast
import functools
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "weights").rglob("*.md")])
SCRIPTS = sorted([*(ROOT / "tools").rglob("*.py"), *(ROOT / "app").glob("*.py")])


def without_code(text: str) -> str:
    """Blocks and words in backticks left out: what looks like a link there is none."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ {4}[^\n]*$|^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them: in small letters, without punctuation, spaces as dashes; the second of a name gets -1."""
    found = list[str]()
    for heading in re.findall(r"^#+ +(.+?) *$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        again = sum(re.fullmatch(rf"{re.escape(plain)}(-\d+)?", other) is not None for other in found)
        found.append(f"{plain}-{again}" if again else plain)
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link} is not there"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link} names no heading of {target.name}"


def test_code_is_no_link():
    assert without_code("a [b](c)\n    [d](e)\n```\n[f](g)\n```\n`[h](i)` [j](k)\n") == "a [b](c)\n\n\n [j](k)\n"


def test_anchors_are_those_of_github(tmp_path: Path):
    page = tmp_path / "a.md"
    page.write_text("# One `two`, three!\n## 5. The app\n## 5. The app\n```\n# code\n```\n")
    assert anchors(page) == {"one-two-three", "5-the-app", "5-the-app-1"}


@functools.cache
def defined_in(file: Path) -> set[str]:
    """Functions, classes and methods (`Class.method`) that a file defines."""
    found = set[str]()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)}
    return found


def test_each_equation_is_linked_to_its_function_and_its_test():
    """Of docs/theory.md: every number is in the table at its end, and every name is defined in the file that it leads to."""
    page = ROOT / "docs" / "theory.md"
    text, _, table = page.read_text().partition("## Where each equation is computed and tested\n")
    numbers = re.findall(r"^ {4}.* \((\d+)\)$", text, re.MULTILINE)
    assert numbers == [str(n) for n in range(1, 13)]
    rows = [re.split(r" *\| *", line.strip("| ")) for line in table.splitlines() if line.startswith("| ")][1:]
    assert {n for of, *_ in rows for n in re.findall(r"\((\d+)\)", of)} == set(numbers)
    for of, functions, tests in rows:
        for cell, folder in ((functions, ROOT / "spyolo"), (tests, ROOT / "tests")):
            links = re.findall(r"\[`([\w.]+)`\]\(([^)]+)\)", cell)
            assert links and len(links) == cell.count("["), f"{of}: {cell}"
            for name, path in links:
                file = (page.parent / path).resolve()
                assert file.is_relative_to(folder), f"{of}: {path}"
                assert name in defined_in(file), f"{of}: {path} defines no {name}"
        assert all(name.startswith("test_") for name, _ in links), f"{of}: {tests}"


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such mode")
def test_scripts_can_be_run_by_their_name():
    """All that say what runs them, and all that a page or a docstring calls without `python`."""
    said = [script for script in SCRIPTS if script.read_text().startswith("#!")]
    pages = "\n".join(path.read_text() for path in [*PAGES, *SCRIPTS, *(ROOT / "spyolo" / "cli").glob("*.py")])
    called = [ROOT / name for name in set(re.findall(r"^ {4}(tools/[\w/]+\.py)", pages, re.MULTILINE))]
    assert len(said) > 20 and len(called) > 10
    assert not [str(script.relative_to(ROOT)) for script in called if not script.read_text().startswith("#!")]
    assert not [str(script.relative_to(ROOT)) for script in {*said, *called} if not os.access(script, os.X_OK)]
