#!/usr/bin/env bash
# From nothing to the shipped weights of `tiny`: six runs, each resumable (run it again after an interruption).
# Afterwards the finished model lies in runs/tiny/parts; `unveil eval scenes --model runs/tiny/parts` scores it.
set -euo pipefail
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT=0  # a busy neighbour core makes spinning threads several times slower
for stage in image_tokenizer vae decoder backbone; do
    unveil train "recipes/tiny/$stage.yaml"
done
part=runs/tiny/parts/backbone.safetensors before=runs/tiny/backbone_before.safetensors
[ -e "$before" ] || cp "$part" "$before"
unveil train recipes/tiny/backbone_describe.yaml
after=runs/tiny/backbone_after.safetensors
[ -e "$after" ] || cp "$part" "$after"
python recipes/tiny/blend.py "$before" "$after" 0.6 "$part"
unveil train recipes/tiny/retrieval.yaml
