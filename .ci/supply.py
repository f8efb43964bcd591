#!/usr/bin/env python3
"""What spyolo stands on: a lock of the environment that CI uses, and a check of it that needs no network.

    python .ci/supply.py lock        write .ci/requirements.lock: every package that spyolo and its extras need, as installed here
    python .ci/supply.py check       bounds hold, versions are the lock's, nothing required has a copyleft licence
    python .ci/supply.py licences    write docs/licences.md

Needs an environment with every extra installed. To repeat it elsewhere: pip install -r .ci/requirements.lock && pip install --no-deps -e .
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / ".ci" / "requirements.lock"
TABLE = ROOT / "docs" / "licences.md"
# Copyleft that asks nothing of those who only use the package, or that comes with a choice; each looked at by hand.
ALLOWED = {
    "tqdm": "MIT and MPL-2.0: file-level copyleft, used unchanged",
    "certifi": "MPL-2.0: a list of certificates, used unchanged",
    "orjson": "MPL-2.0 for one part, else Apache-2.0 or MIT: used unchanged",
    "cuda-toolkit": "an empty package that names NVIDIA's own",
}
TEXTS = {"Apache-2.0": "Apache License", "MIT": "MIT License", "GPL": "GNU GENERAL PUBLIC LICENSE", "BSD": "Redistribution and use in"}
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|GNU|MPL|Mozilla|EUPL|CDDL|EPL|Eclipse|copyleft|SSPL|CC[- ]BY[- ](SA|NC))", re.IGNORECASE)


def project() -> dict[str, list[str]]:
    """'' -> the required packages' bounds, and each extra's."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": table["dependencies"], **table["optional-dependencies"]}


def extras_of_project() -> list[str]:
    """Extras of the project, `dev` last: it takes in others."""
    return [*sorted(project().keys() - {"", "dev"}), "dev"]


def closure(requirements: Iterable[str]) -> dict[str, Distribution]:
    """All packages needed, by canonical name, as installed. Raises SystemExit where one is missing."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(Requirement(r), frozenset[str]()) for r in requirements]
    while waiting:
        wanted, extras_of_parent = waiting.pop()
        environments = [{"extra": e} for e in extras_of_parent] or [{"extra": ""}]
        if wanted.marker and not any(wanted.marker.evaluate(e) for e in environments):
            continue
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if name == "spyolo" or (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{wanted} is not installed; pip install -e '.[{','.join(extras_of_project())}]' first") from None
        waiting += [(Requirement(r), extras) for r in found[name].requires or []]
    return dict(sorted(found.items()))


def public(version: str) -> str:
    """Without the local part: torch's +cpu names a build, not a version."""
    return version.partition("+")[0]


def parts() -> dict[str, dict[str, Distribution]]:
    """`required`, then each extra: its packages that no earlier part has."""
    bounds, known, found = project(), set[str](), dict[str, dict[str, Distribution]]()
    for name in ("", *extras_of_project()):
        new = {k: d for k, d in closure(bounds[name]).items() if k not in known}
        found[name or "required"] = new
        known |= set(new)
    return found


def lock() -> int:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = [f"# What `python .ci/supply.py lock` found under Python {python}. Not edited by hand."]
    for part, packages in parts().items():
        lines += ["", f"# {part}", *(f"{name}=={public(d.version)}" for name, d in packages.items())]
    LOCK.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{sum('==' in line for line in lines)} packages -> {LOCK.relative_to(ROOT)}")
    return 0


def read_lock() -> dict[str, str]:
    rows = [line.split("==") for line in LOCK.read_text(encoding="utf-8").splitlines() if "==" in line]
    return dict(rows)


def licence(dist: Distribution) -> str:
    """As its metadata says: the SPDX expression, else the classifiers, else the first line of the free text, else the file itself."""
    m = dist.metadata
    if expression := m.get("License-Expression"):
        return expression
    classifiers = [c.rpartition(" :: ")[2] for c in m.get_all("Classifier") or [] if c.startswith("License ::") and c.count("::") > 1]
    free = next((line.strip() for line in (m.get("License") or "").splitlines() if line.strip()), "")
    return " and ".join(classifiers) or free[:60] or _licence_of_file(dist) or "not said"


def _licence_of_file(dist: Distribution) -> str:
    for file in dist.files or []:
        if file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")) and ".dist-info" in str(file):
            text = Path(str(dist.locate_file(file))).read_text(encoding="utf-8", errors="replace")[:2000]
            return next((name for name, words in TEXTS.items() if words in text), "")
    return ""


def problems() -> list[str]:
    """One line each; empty when all is well."""
    found, bounds, locked = parts(), project(), read_lock()
    everything = {name: d for packages in found.values() for name, d in packages.items()}
    said = []
    for part, requirements in bounds.items():
        for text in requirements:
            r = Requirement(text)
            name = canonicalize_name(r.name)
            if name != "spyolo" and name in everything and not r.specifier.contains(Version(everything[name].version), prereleases=True):
                said.append(f"{name} {everything[name].version} is outside {r.specifier or 'its bounds'} ({part or 'required'})")
            if name != "spyolo" and not r.specifier and part != "dev":
                said.append(f"{name} has no bound ({part or 'required'})")
    for name, dist in everything.items():
        if name not in locked:
            said.append(f"{name} is not in the lock; python .ci/supply.py lock")
        elif Version(public(dist.version)) != Version(locked[name]):
            said.append(f"{name} {dist.version} is installed, the lock has {locked[name]}")
        for text in dist.requires or []:
            r = Requirement(text)
            other = everything.get(canonicalize_name(r.name))
            needed = other is not None and (not r.marker or r.marker.evaluate({"extra": ""}))
            if needed and other is not None and not r.specifier.contains(Version(other.version), prereleases=True):
                said.append(f"{name} needs {r.name}{r.specifier}, {other.version} is installed")
    said += [f"the lock names {name}, which nothing needs; python .ci/supply.py lock" for name in locked if name not in everything]
    for part in found.keys() - {"dev"}:
        for name, dist in found[part].items():
            if (COPYLEFT.search(licence(dist)) or licence(dist) == "not said") and name not in ALLOWED:
                said.append(f"{name} ({part}): licence {licence(dist)}")
    return said


def check() -> int:
    said = problems()
    print("\n".join(said) or f"{len(read_lock())} packages: bounds hold, versions are the lock's, no copyleft is required")
    return 1 if said else 0


def licences() -> int:
    lines = ["# Licences of what spyolo needs", "", "Written by `python .ci/supply.py licences` from the packages' own metadata.", ""]
    titles = {"required": "Required", "dev": "Extra `dev` (tests and tools, never shipped)"}
    for part, packages in parts().items():
        lines += [f"## {titles.get(part, f'Extra `{part}`')}", "", "| package | version | licence | |", "|---|---|---|---|"]
        lines += [f"| {n} | {public(d.version)} | {licence(d).replace('|', '/')} | {ALLOWED.get(n, '')} |" for n, d in packages.items()]
        lines.append("")
    TABLE.write_text("\n".join(lines), encoding="utf-8")
    print(TABLE.relative_to(ROOT))
    return 0


COMMANDS = {"lock": lock, "check": check, "licences": licences}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        raise SystemExit(__doc__)
    raise SystemExit(COMMANDS[sys.argv[1]]())
