#!/usr/bin/env bash
# Answers the questions of MSRVTT-QA about films with the averaged weights (EMA) of a model, and scores the answers.
#
# usage: bash run_scripts/vqa/eval/video/eval_video_qa.sh [KEY=VALUE ...]
#   EMA_EVAL=     evaluates the weights themselves
#   The other settings are those of run_scripts/vqa/eval/eval_vqa.sh.
FOLDER=data/ofa/video_data/vqa_data
DATA=${DATA:-$FOLDER/msrvtt_qa_4k_test.tsv}
ANSWERS=${ANSWERS:-$FOLDER/msrvtt_trainval_4k_ans2label.json}
CHECKPOINT=${CHECKPOINT:-logs/ofa/checkpoints/vqa/unival_video_vqa/checkpoint_best.pt}
RESULTS=${RESULTS:-results/video_qa}
TASK=video_vqa_gen
EMA_EVAL=${EMA_EVAL-1}
BATCH_SIZE=${BATCH_SIZE:-16}
VALID_BATCH_SIZE=${VALID_BATCH_SIZE:-40}
NUM_FRAMES=${NUM_FRAMES:-8}
PATCH_FRAME_SIZE=${PATCH_FRAME_SIZE:-384}
IMAGES=${IMAGES---read-from-img-path}
ZERO_SHOT=${ZERO_SHOT-}
source "$(dirname "${BASH_SOURCE[0]}")/../eval_vqa.sh"
