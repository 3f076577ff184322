#!/usr/bin/env bash
# Finetunes UnIVAL for questions about films on MSVD-QA (40 epochs), as run_scripts/vqa/video/unival_video_vqa.sh.
#
# usage: bash run_scripts/vqa/video/msvd/unival_video_vqa_msvd.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/vqa/unival_vqa.sh.
FOLDER=data/ofa/video_data/vqa_data
DATA=${DATA:-$(printf "$FOLDER/msvd_qa_1k_train_%d.tsv," {1..10})$FOLDER/msvd_qa_1k_test.tsv}
ANSWERS=${ANSWERS:-$FOLDER/msvd_trainval_1k_ans2label.json}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/vqa/unival_video_vqa_msvd}
MAX_EPOCH=${MAX_EPOCH:-40}
VALIDATE_INTERVAL_UPDATES=${VALIDATE_INTERVAL_UPDATES:-0}
source "$(dirname "${BASH_SOURCE[0]}")/../unival_video_vqa.sh"
