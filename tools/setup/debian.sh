#!/usr/bin/env bash
# Installs the Debian packages of debian-packages.txt that are missing.
set -euo pipefail
cd "$(dirname "$0")"

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
available() { apt-cache show "$1" >/dev/null 2>&1; }

missing=()
while read -r line; do
    IFS='|' read -ra alternatives <<<"$line"
    for package in "${alternatives[@]}"; do
        installed "$package" && continue 2
    done
    missing+=("$line")
done < <(grep -v '^#' debian-packages.txt)

if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "These packages are missing, and this is not Debian or Ubuntu: ${missing[*]}" >&2
        echo "Install what your distribution calls them, then: mkdir -p build && touch build/.packages" >&2
        exit 1
    fi
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    echo "installing Debian packages: ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    chosen=()
    absent=()
    for line in "${missing[@]}"; do
        IFS='|' read -ra alternatives <<<"$line"
        for package in "${alternatives[@]}"; do
            available "$package" && chosen+=("$package") && continue 2
        done
        absent+=("$line")
    done
    if [ ${#absent[@]} -gt 0 ]; then
        echo "apt has no package ${absent[*]}: enable the component that has it (Ubuntu: add-apt-repository universe)" >&2
        exit 1
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${chosen[@]}" >/dev/null
fi
