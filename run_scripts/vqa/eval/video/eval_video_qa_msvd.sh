#!/usr/bin/env bash
# Answers the questions of MSVD-QA about films, as run_scripts/vqa/eval/video/eval_video_qa.sh, without a prompt.
#
# usage: bash run_scripts/vqa/eval/video/eval_video_qa_msvd.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/vqa/eval/eval_vqa.sh.
FOLDER=data/ofa/video_data/vqa_data
DATA=${DATA:-$FOLDER/msvd_qa_1k_test.tsv}
ANSWERS=${ANSWERS:-$FOLDER/msvd_trainval_1k_ans2label.json}
CHECKPOINT=${CHECKPOINT:-logs/ofa/checkpoints/vqa/unival_video_vqa_msvd/checkpoint_best.pt}
RESULTS=${RESULTS:-results/video_qa_msvd}
PROMPT_TYPE=${PROMPT_TYPE:-none}
source "$(dirname "${BASH_SOURCE[0]}")/eval_video_qa.sh"
