#!/usr/bin/env bash
# From nothing to the shipped weights of `tiny`: five runs, each resumable (run it again after an interruption).
# Afterwards the finished model lies in runs/tiny/parts; `unveil eval scenes --model runs/tiny/parts` scores it.
set -euo pipefail
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT=0  # a busy neighbour core makes spinning threads several times slower
for stage in image_tokenizer vae decoder backbone retrieval; do
    unveil train "recipes/tiny/$stage.yaml"
done
