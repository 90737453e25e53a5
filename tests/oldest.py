"""Print a constraint for each requirement in `pyproject.toml`: the lowest version that it allows.

Usage: python tests/oldest.py > constraints-oldest.txt
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What the tests are run with, and not what is tested.
TOOLS = {"build", "deptry", "hypothesis", "optax", "pytest", "pytest-xdist", "ruff", "scikit-image", "setuptools"}


def lowest_versions(pyproject):
    """Return `{name: lowest version}` of everything that a project depends on; the highest where several are given."""
    project = tomllib.loads(pyproject)["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = {}
    for requirement in (line for group in groups for line in group):
        match = re.match(r"([\w.-]+)>=([\d.]+)", requirement)
        if match and match[1] not in TOOLS:
            found.setdefault(match[1], []).append(match[2])
    return {name: max(versions, key=_parts) for name, versions in sorted(found.items())}


def _parts(version):
    return tuple(int(part) for part in version.split("."))


if __name__ == "__main__":
    for name, version in lowest_versions((ROOT / "pyproject.toml").read_text(encoding="utf-8")).items():
        print(f"{name}=={version}")
