#!/usr/bin/env bash
# Installs the extra `train` into .venv unless it is there, and runs the tests that need it. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
reports=build/reports
mkdir -p "$reports"

"$bin/python" -c 'import tensorboard, torch, torchrl' 2>/dev/null || {
    echo "installing the extra train into .venv"
    "$bin/pip" --disable-pip-version-check -q install --no-build-isolation -e '.[dev,train]'
}
"$bin/python" -m pytest --junitxml="$reports/pytest-training.xml" tests/rl/algorithms "$@"
"$bin/python" -m tools.summary "$reports/pytest-training.xml"
