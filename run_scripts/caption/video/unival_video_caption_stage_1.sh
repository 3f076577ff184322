#!/usr/bin/env bash
# Finetunes UnIVAL for captions of films with cross entropy (MSR-VTT: 20 epochs, 16 frames of 384 px, 16 films a GPU x 2
# batches on 8 GPUs).
#
# usage: bash run_scripts/caption/video/unival_video_caption_stage_1.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
FOLDER=data/ofa/video_data/caption_data
DATA=${DATA:-$(printf "$FOLDER/msrvtt_caption_train7k_%d.tsv," {1..10})$FOLDER/msrvtt_caption_test3k.tsv}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/ofa_base_pretrain_s2_long_lr1e4_50ep_nolsdata_vidhs/checkpoint1.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_video_caption_stage_1}
TASK=video_caption
MAX_EPOCH=${MAX_EPOCH:-20}
UPDATE_FREQ=${UPDATE_FREQ:-2}
SAVE_INTERVAL_UPDATES=${SAVE_INTERVAL_UPDATES:-0}
VALIDATE_INTERVAL_UPDATES=${VALIDATE_INTERVAL_UPDATES:-2000}
NUM_FRAMES=${NUM_FRAMES:-16}
PATCH_FRAME_SIZE=${PATCH_FRAME_SIZE:-384}
VIDEO_ENCODER=${VIDEO_ENCODER-all_resnext101}
MEDIA_FLAGS=${MEDIA_FLAGS---use-dataaug}
SEARCH='{"beam":5,"unnormalized":true,"temperature":1.0,"stop_on_max_len":true}'
EVAL_ARGS=${EVAL_ARGS:-$SEARCH}
source "$(dirname "${BASH_SOURCE[0]}")/../unival_caption_stage_1.sh"
