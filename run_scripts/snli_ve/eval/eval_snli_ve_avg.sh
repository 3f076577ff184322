#!/usr/bin/env bash
# Evaluates averages of models for visual entailment, one after the other.
#
# usage: bash run_scripts/snli_ve/eval/eval_snli_ve_avg.sh [KEY=VALUE ...]
#   CHECKPOINT    the averages, separated by commas; the other settings are those of
#                 run_scripts/snli_ve/eval/eval_snli_ve.sh
AVERAGES=logs/ofa/pretrained_models/average_models
FUSED=$(printf "$AVERAGES/avg_postfuse_snliref_l%s.pt," 0.{00,20,40,60,80} 1.00)
CHECKPOINT=${CHECKPOINT:-$AVERAGES/avg_rata_snlirefcapvqa.pt,$FUSED}
RESULTS=${RESULTS:-results/snli_ve_avg}
source "$(dirname "${BASH_SOURCE[0]}")/eval_snli_ve.sh"
