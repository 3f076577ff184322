#!/usr/bin/env bash
# Finds the boxes of the expressions of RefCOCOg, as run_scripts/refcoco/eval/eval_refcoco.sh, whose settings it has.
#
# usage: bash run_scripts/refcoco/eval/eval_refcocog.sh [KEY=VALUE ...]
DATASET=refcocog
FOLDER=data/ofa/${DATASET}_data
DATA=${DATA:-$FOLDER/${DATASET}_val.tsv,$FOLDER/${DATASET}_test.tsv}
source "$(dirname "${BASH_SOURCE[0]}")/eval_refcoco.sh"
