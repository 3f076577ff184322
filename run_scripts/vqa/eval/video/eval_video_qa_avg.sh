#!/usr/bin/env bash
# Answers the questions of MSRVTT-QA about films with averages of two models at several weights, and scores the answers.
#
# usage: bash run_scripts/vqa/eval/video/eval_video_qa_avg.sh [KEY=VALUE ...]
#   CHECKPOINT    the averages, separated by commas
#   The other settings are those of run_scripts/vqa/eval/eval_vqa.sh.
AVERAGES=logs/ofa/pretrained_models/average_models
CHECKPOINT=${CHECKPOINT:-$(printf "$AVERAGES/avg_vid_vqacap_l%s.pt," 0.{00,20,40,60,80} 1.00)}
RESULTS=${RESULTS:-results/video_qa_avg}
EMA_EVAL=${EMA_EVAL-}
source "$(dirname "${BASH_SOURCE[0]}")/eval_video_qa.sh"
