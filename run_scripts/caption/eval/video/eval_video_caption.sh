#!/usr/bin/env bash
# Captions the films of a file and scores the captions. UnIVAL has published no such script; the search is that of its
# validation while finetuning.
#
# usage: bash run_scripts/caption/eval/video/eval_video_caption.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/eval/eval_caption.sh.
DATA=${DATA:-data/ofa/video_data/caption_data/msrvtt_caption_test3k.tsv}
SELECTED_COLS=${SELECTED_COLS:-0,4,2}
CHECKPOINT=${CHECKPOINT:-logs/ofa/checkpoints/caption/unival_video_caption_stage_1/checkpoint_best.pt}
RESULTS=${RESULTS:-results/video_caption}
TASK=video_caption
NUM_FRAMES=${NUM_FRAMES:-16}
PATCH_FRAME_SIZE=${PATCH_FRAME_SIZE:-384}
MAX_LEN_B=${MAX_LEN_B:-200}
NO_REPEAT=${NO_REPEAT:-0}
IMAGES=${IMAGES---read-from-img-path}
source "$(dirname "${BASH_SOURCE[0]}")/../eval_caption.sh"
