#!/usr/bin/env bash
# Captions the pictures of COCO's test set with averages of two models at several weights, and scores the captions.
#
# usage: bash run_scripts/caption/eval/eval_caption_avg.sh [KEY=VALUE ...]
#   CHECKPOINT    the averages, separated by commas
#   The other settings are those of run_scripts/caption/eval/eval_caption.sh.
AVERAGES=logs/ofa/pretrained_models/average_models
CHECKPOINT=${CHECKPOINT:-$(printf "$AVERAGES/avg_postfuse_capvqa_l%s.pt," 0.{00,20,40,60,80} 1.00)}
RESULTS=${RESULTS:-results/caption_avg}
source "$(dirname "${BASH_SOURCE[0]}")/eval_caption.sh"
