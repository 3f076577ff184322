#!/usr/bin/env bash
# Finetunes UnIVAL for captions of films on ActivityNet Captions (25 epochs), as
# run_scripts/caption/video/unival_video_caption_stage_1.sh, whose settings it has but for the rate of learning.
#
# usage: bash run_scripts/caption/video/activitynet/unival_video_caption_activitynet_stage_1.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
FOLDER=data/ofa/video_data/caption_data
DATA=${DATA:-$(printf "$FOLDER/activitynet_caption_train_%d.tsv," {1..10})$FOLDER/activitynet_caption_val2.tsv}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint1.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_video_caption_activitynet_stage_1}
LR=${LR:-3e-5}
MAX_EPOCH=${MAX_EPOCH:-25}
source "$(dirname "${BASH_SOURCE[0]}")/../unival_video_caption_stage_1.sh"
