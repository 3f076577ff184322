#!/usr/bin/env bash
# Averages models that were finetuned from the same weights; by default UnIVAL's models for captions, grounding,
# entailment and questions, which fusing starts from. `unival merge` can do more, see docs/merging.md.
#
# usage: bash run_scripts/averaging/average.sh [KEY=VALUE ...]
#   CHECKPOINTS   files to average, separated by commas (default: where the tasks' scripts put them)
#   COEFFICIENTS  their weights, separated by commas; empty: all the same
#   OUTPUT        file to write (default: avg_caprefsnlivqa.pt)
#   MERGE         further flags for unival merge, as --overwrite or --ema
#   DRY_RUN=1     only show the command
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
settings "$@"

CHECKPOINTS=${CHECKPOINTS:-$(model_of caption),$(model_of refcocoplus),$(model_of snli_ve),$(model_of vqa)}
OUTPUT=${OUTPUT:-$AVERAGES/avg_caprefsnlivqa.pt}

IFS=, read -ra files <<<"$CHECKPOINTS"
for file in "${files[@]}"; do need "$file" "CHECKPOINTS"; done
weights=()
[[ -z ${COEFFICIENTS:-} ]] || weights=(--coefficients="$COEFFICIENTS")
[[ -n ${DRY_RUN:-} ]] || mkdir -p "$(dirname "$OUTPUT")"
# shellcheck disable=SC2086  # MERGE holds several words
perform exec unival merge "${files[@]}" --output "$OUTPUT" "${weights[@]}" ${MERGE:-}
