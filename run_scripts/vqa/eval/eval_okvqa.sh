#!/usr/bin/env bash
# Answers the questions of OK-VQA without having been trained on them (zero-shot), and scores the answers.
#
# usage: bash run_scripts/vqa/eval/eval_okvqa.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/vqa/eval/eval_vqa.sh.
FOLDER=data/ofa/vqa_data
DATA=${DATA:-$FOLDER/okvqa_acc_val.tsv}
ANSWERS=${ANSWERS:-$FOLDER/okvqa_trainval_ans2label.json}
CHECKPOINT=${CHECKPOINT:-logs/ofa/pretrained_models/average_models/avg_postratafusevanilla.pt}
RESULTS=${RESULTS:-results/okvqa}
PROMPT_TYPE=${PROMPT_TYPE:-none}
IMAGES=${IMAGES---read-from-img-path}
source "$(dirname "${BASH_SOURCE[0]}")/eval_vqa.sh"
