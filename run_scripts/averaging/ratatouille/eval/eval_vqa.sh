#!/usr/bin/env bash
# Answers the VQA validation questions with ratatouille's average, and scores the answers.
#
# usage: bash run_scripts/averaging/ratatouille/eval/eval_vqa.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/vqa/eval/eval_vqa.sh.
DATA=${DATA:-data/ofa/vqa_data/vqa_val.tsv}
CHECKPOINT=${CHECKPOINT:-logs/ofa/pretrained_models/average_models/vqa_ratacapgroundsnlivqalr5e5.pt}
RESULTS=${RESULTS:-results/vqa_ratatouille}
BATCH_SIZE=${BATCH_SIZE:-16}
VALID_BATCH_SIZE=${VALID_BATCH_SIZE:-40}
ZERO_SHOT=${ZERO_SHOT-}
source "$(dirname "${BASH_SOURCE[0]}")/../../../vqa/eval/eval_vqa.sh"
