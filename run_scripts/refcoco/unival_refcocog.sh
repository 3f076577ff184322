#!/usr/bin/env bash
# Finetunes UnIVAL for visual grounding on RefCOCOg, as run_scripts/refcoco/unival_refcoco.sh, whose settings it has.
#
# usage: bash run_scripts/refcoco/unival_refcocog.sh [KEY=VALUE ...]
DATASET=refcocog
source "$(dirname "${BASH_SOURCE[0]}")/unival_refcoco.sh"
