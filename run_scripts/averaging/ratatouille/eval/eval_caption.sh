#!/usr/bin/env bash
# Captions the pictures of COCO's test set with ratatouille's average, and scores the captions.
#
# usage: bash run_scripts/averaging/ratatouille/eval/eval_caption.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/eval/eval_caption.sh.
CHECKPOINT=${CHECKPOINT:-logs/ofa/pretrained_models/average_models/caption_ratacapgroundsnlivqaofapt.pt}
RESULTS=${RESULTS:-results/caption_ratatouille}
MAX_LEN_B=${MAX_LEN_B:-16}
UNNORMALIZED=${UNNORMALIZED-}
source "$(dirname "${BASH_SOURCE[0]}")/../../../caption/eval/eval_caption.sh"
