#!/usr/bin/env bash
# go_modules.sh COMMAND...: runs the command in each of our own Go modules that hold programs (not those that
# only name versions of Kubernetes and containerd to build).
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" # the environment has Go where the machine has none
for module in e2e/tools; do
    (cd "$module" && "$@")
done
