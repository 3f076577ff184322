#!/usr/bin/env bash
# Finetunes UnIVAL for questions about films (MSRVTT-QA: 35 epochs, 8 frames of 384 px, 8 films a GPU x 2 batches on 8
# GPUs).
#
# usage: bash run_scripts/vqa/video/unival_video_vqa.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/vqa/unival_vqa.sh.
FOLDER=data/ofa/video_data/vqa_data
DATA=${DATA:-$(printf "$FOLDER/msrvtt_qa_4k_train_%d.tsv," {1..10})$FOLDER/msrvtt_qa_4k_test.tsv}
ANSWERS=${ANSWERS:-$FOLDER/msrvtt_trainval_4k_ans2label.json}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/vqa/unival_video_vqa}
TASK=video_vqa_gen
MAX_EPOCH=${MAX_EPOCH:-35}
BATCH_SIZE=${BATCH_SIZE:-8}
UPDATE_FREQ=${UPDATE_FREQ:-2}
VALID_BATCH_SIZE=${VALID_BATCH_SIZE:-8}
NUM_FRAMES=${NUM_FRAMES:-8}
PATCH_FRAME_SIZE=${PATCH_FRAME_SIZE:-384}
VIDEO_ENCODER=${VIDEO_ENCODER-all_resnext101}
WORST="--drop-worst-ratio 0.05 --drop-worst-after 6000"
BEST="--drop-best-ratio 0.05 --drop-best-after 6000"
LOSS=${LOSS:-adjust_label_smoothed_encouraging_loss --log-end 0.75 $WORST $BEST}
source "$(dirname "${BASH_SOURCE[0]}")/../unival_vqa.sh"
