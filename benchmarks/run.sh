#!/usr/bin/env bash
# The whole bench on an otherwise idle machine; keeps what it printed beside the machine's name. About ten minutes on
# two cores with two rounds; progress goes to stderr. What is finished stays if a later part fails.
set -euo pipefail
cd "$(dirname "$0")/.."
out=benchmarks/results/$(uname -m)-$(nproc)-cores
mkdir -p benchmarks/results
python benchmarks/part1.py "${1:-2}" > "$out-part1.json.new"
mv "$out-part1.json.new" "$out-part1.json"
unveil bench --rounds "${1:-2}" --json > "$out.json.new"
mv "$out.json.new" "$out.json"
cat "$out-part1.json" "$out.json"
