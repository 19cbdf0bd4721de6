#!/usr/bin/env bash
# Everything in README.md and docs/ that depends on the shipped weights: scores, failures, pictures.
# Arguments: held-out items a score, edits scored with and without a mask, prompts a setting of the sweep.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p docs/pictures
unveil eval scenes --n "${1:-500}" --failures docs/pictures/failures.png > docs/scores.md
python docs/readme.py
python docs/pictures.py
python docs/canvases.py "${2:-60}"
unveil bench --pareto docs/pictures/pareto.png --n "${3:-25}"
cat docs/scores.md
