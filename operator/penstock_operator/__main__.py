"""`python -m penstock_operator`: the operator with settings of the environment."""

import sys

from penstock_operator.main import run
from penstock_operator.settings import Settings, SettingsError

if __name__ == "__main__":
    try:
        found = Settings.from_environment()
    except SettingsError as problem:
        sys.exit(str(problem))
    sys.exit(run(found))
