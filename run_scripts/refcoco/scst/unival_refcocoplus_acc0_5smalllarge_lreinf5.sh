#!/usr/bin/env bash
# Rewarded soups: as run_scripts/refcoco/scst/unival_refcocoplus_acc0_5small_lreinf5.sh, whose settings it has, with a
# reward for boxes of small and large objects.
#
# usage: bash run_scripts/refcoco/scst/unival_refcocoplus_acc0_5smalllarge_lreinf5.sh [KEY=VALUE ...]
MAX_AREA=${MAX_AREA-30000}
MIN_AREA=${MIN_AREA-100000}
source "$(dirname "${BASH_SOURCE[0]}")/unival_refcocoplus_acc0_5small_lreinf5.sh"
