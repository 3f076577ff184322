#!/usr/bin/env bash
# Rewarded soups: as run_scripts/refcoco/scst/unival_refcocoplus_acc0_5small_lreinf5.sh, whose settings it has, with a
# reward for boxes of objects of medium size and large ones.
#
# usage: bash run_scripts/refcoco/scst/unival_refcocoplus_acc0_5mediumlarge_lreinf5.sh [KEY=VALUE ...]
MAX_AREA=${MAX_AREA-30000}
MEDIUM=${MEDIUM-1}
source "$(dirname "${BASH_SOURCE[0]}")/unival_refcocoplus_acc0_5small_lreinf5.sh"
