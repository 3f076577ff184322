#!/usr/bin/env bash
# Answers the VQA validation questions with averages of two models at several weights, and scores the answers.
#
# usage: bash run_scripts/vqa/eval/eval_vqa_avg.sh [KEY=VALUE ...]
#   CHECKPOINT    the averages, separated by commas; the other settings are those of run_scripts/vqa/eval/eval_vqa.sh
DATA=${DATA:-data/ofa/vqa_data/vqa_fullval.tsv}
CHECKPOINT=${CHECKPOINT:-$(printf "logs/ofa/pretrained_models/average_models/avg_postfuse_vqacap_l%s.pt," 0.{00,20,40,60,80} 1.00)}
RESULTS=${RESULTS:-results/vqa_avg}
BATCH_SIZE=${BATCH_SIZE:-16}
VALID_BATCH_SIZE=${VALID_BATCH_SIZE:-40}
IMAGES=${IMAGES---read-from-img-path}
ZERO_SHOT=${ZERO_SHOT-}
source "$(dirname "${BASH_SOURCE[0]}")/eval_vqa.sh"
