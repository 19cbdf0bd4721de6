#!/usr/bin/env bash
# The whole bench on an otherwise idle machine; keeps what it printed beside the machine's name.
set -euo pipefail
cd "$(dirname "$0")/.."
out=benchmarks/results/$(uname -m)-$(nproc)-cores.json
mkdir -p benchmarks/results
unveil bench --rounds "${1:-2}" --json --quiet > "$out"
cat "$out"
