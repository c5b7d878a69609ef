"""Print what an image installs: `requirements.py ROLE` a role's packages, `requirements.py --build` the build's.

The lists are pyproject.toml's. `make locks` turns them into docker/locks, by which images install.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())


def role(name: str) -> list[str]:
    """Return a role's packages; where it builds on another role, also that one's."""
    found = []
    for requirement in project["project"]["optional-dependencies"][name]:
        base = requirement.removeprefix("penstock[").removesuffix("]")
        found += [requirement] if base == requirement else role(base)
    return found


if sys.argv[1] == "--build":
    requirements = project["build-system"]["requires"]
else:
    requirements = [*project["project"]["dependencies"], *role(sys.argv[1])]
print("\n".join(requirements))
