#!/usr/bin/env bash
# Captions the pictures of NoCaps without having been trained on them (zero-shot): all of validation, then its three
# domains.
#
# usage: bash run_scripts/caption/eval/eval_nocaps.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/eval/eval_caption.sh.
FOLDER=data/ofa/caption_data
NOCAPS=$FOLDER/nocaps
DATA=${DATA:-${NOCAPS}_val.tsv,${NOCAPS}_indomain_val.tsv,${NOCAPS}_neardomain_val.tsv,${NOCAPS}_outdomain_val.tsv}
CHECKPOINT=${CHECKPOINT:-logs/ofa/pretrained_models/average_models/avg_postratafusevanilla.pt}
RESULTS=${RESULTS:-results/nocaps}
SPLIT=${SPLIT-}
COCO_JSON=${COCO_JSON-$FOLDER/nocaps_val_caption_coco_format.json}
IMAGES=${IMAGES---read-from-img-path}
ZERO_SHOT=${ZERO_SHOT---zero-shot}
source "$(dirname "${BASH_SOURCE[0]}")/eval_caption.sh"
