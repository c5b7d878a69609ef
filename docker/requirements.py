"""Print what an image installs: `requirements.py ROLE` a role's packages, `requirements.py --build` the build's.

The lists are pyproject.toml's. An image installs them before any code is copied, so an edit of code keeps that layer.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
if sys.argv[1] == "--build":
    requirements = project["build-system"]["requires"]
else:
    requirements = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"][sys.argv[1]],
    ]
print("\n".join(requirements))
