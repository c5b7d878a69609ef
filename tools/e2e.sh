#!/usr/bin/env bash
# Faults under load on a real cluster (PROVIDER=local unless told otherwise). Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/reports
exec .venv/bin/python -m pytest e2e --timeout=1800 --junitxml=build/reports/e2e.xml -v -p no:cacheprovider "$@"
