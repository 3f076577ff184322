#!/usr/bin/env bash
# Finetunes UnIVAL for visual grounding on RefCOCO+, as run_scripts/refcoco/unival_refcoco.sh, whose settings it has.
#
# usage: bash run_scripts/refcoco/unival_refcocoplus.sh [KEY=VALUE ...]
DATASET=refcocoplus
source "$(dirname "${BASH_SOURCE[0]}")/unival_refcoco.sh"
