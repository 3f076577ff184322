#!/usr/bin/env bash
# Fusing: finetunes the average of several tasks' models with the recipe for captions of films.
#
# usage: bash run_scripts/averaging/fusing/scaling_best/video/video_caption_stage_1_ofaplus_base_pretrain_s2_hsep1_shuf_el_db_da_initavgvideocaptionvqa.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
INIT_FROM=${INIT_FROM-logs/ofa/pretrained_models/average_models/avg_vid_capvqa.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/$(basename "${BASH_SOURCE[0]}" .sh)}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../caption/video/unival_video_caption_stage_1.sh"
