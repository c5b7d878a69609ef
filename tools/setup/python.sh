#!/usr/bin/env bash
# python.sh PYTHON VENV: makes the virtual environment if it is missing and installs Penstock into it, editable.
# Dependencies are resolved again only when pyproject.toml changed; otherwise only the C side is compiled.
set -euo pipefail
python=$1 venv=$2
cd "$(dirname "$0")/../.."

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "$python is older than 3.11: name a newer one, for example: make PYTHON=python3.12" >&2
    exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"

# Version and extras are the whole key: a changed requirement changes the file.
want=$(sha256sum pyproject.toml | cut -d' ' -f1)
have=$(cat "$venv/.penstock-pyproject" 2>/dev/null || true)
pip=("$venv/bin/pip" --disable-pip-version-check -q install)
if [ "$want" != "$have" ]; then
    echo "installing Python packages into $venv"
    "${pip[@]}" 'scikit-build-core>=1.0' 'nanobind>=3.0' ninja
    "${pip[@]}" --no-build-isolation -e '.[dev]'
    echo "$want" >"$venv/.penstock-pyproject"
else
    "${pip[@]}" --no-build-isolation --no-deps -e .
fi
