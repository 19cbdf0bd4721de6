#!/usr/bin/env bash
# From nothing to the shipped weights of `tiny`: nine runs, each resumable (run it again after an interruption).
# Afterwards the finished model lies in runs/tiny/parts; `unveil eval scenes --model runs/tiny/parts` scores it.
set -euo pipefail
cd "$(dirname "$0")/../.."
export GOMP_SPINCOUNT=0  # a busy neighbour core makes spinning threads several times slower
part=runs/tiny/parts/backbone.safetensors
train() {  # a run of the backbone, which leaves a copy of what it made
    local copy=runs/tiny/$1.safetensors
    unveil train "recipes/tiny/$1.yaml"
    [ -e "$copy" ] || { cp "$part" "$copy.tmp" && mv "$copy.tmp" "$copy"; }
}
blend() { python recipes/tiny/blend.py "runs/tiny/$1.safetensors" "runs/tiny/$2.safetensors" "$3" "$part"; }

for stage in image_tokenizer vae decoder; do
    unveil train "recipes/tiny/$stage.yaml"
done
train backbone
train backbone_describe
[ -e runs/tiny/backbone_longer ] || blend backbone backbone_describe 0.6
train backbone_longer
train backbone_further
[ -e runs/tiny/backbone_beside ] || blend backbone_longer backbone_further 0.5
train backbone_beside
unveil train recipes/tiny/retrieval.yaml
