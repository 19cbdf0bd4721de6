#!/usr/bin/env bash
# Everything in README.md and docs/ that depends on the shipped weights: scores, failures, pictures.
# The argument is the number of held-out items a score.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p docs/pictures
unveil eval scenes --n "${1:-500}" --failures docs/pictures/failures.png > docs/scores.md
python docs/readme.py
python docs/pictures.py
cat docs/scores.md
