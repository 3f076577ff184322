#!/usr/bin/env bash
# Goes from one model to another in steps (weight interpolation), evaluates every step on one or more tasks, and draws
# the scores: FOLDER/sweep.jsonl and FOLDER/sweep.png. An interrupted run continues.
#
# usage: bash run_scripts/averaging/interpolate.sh FIRST=caption.pt SECOND=vqa.pt [KEY=VALUE ...]
#   FIRST, SECOND  the models (default: UnIVAL's for captions and for questions)
#   SWEEP         weights of FIRST as FROM:TO:STEP or a list with commas (default: 0:1:0.2); SECOND has the rest
#   TASKS         what to evaluate, of caption, refcocoplus, snli_ve, vqa, video_caption, video_vqa (default: "caption vqa")
#   <TASK>_<SETTING>  a setting of a task's evaluation script, as VQA_DATA (one file), VQA_ANSWERS, CAPTION_MAX_LEN_B;
#                 settings without a task's name, as WORKERS and TEXT, are for all
#   <TASK>_METRIC  scores to look at, separated by commas
#   FOLDER        where everything goes
#   MERGE         further flags for unival merge, as --method slerp or --keep-checkpoints, see docs/merging.md
#   DRY_RUN=1     only show the command
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
settings "$@"

FIRST=${FIRST:-$(model_of caption)}
SECOND=${SECOND:-$(model_of vqa)}
FOLDER=${FOLDER:-logs/ofa/checkpoints/interpolation}
SNLI_VE_DATA=${SNLI_VE_DATA:-data/ofa/snli_ve_data/snli_ve_dev.tsv}

# quoted WORD: as unival merge reads it, which runs no shell
quoted() {
    printf "'%s' " "${1//\'/\'\\\'\'}"
}

# add_evaluation TASK SCRIPT METRICS
add_evaluation() {
    local task=$1 prefix=${1^^}_ setting metric metrics command
    command="bash $(quoted "$ROOT/run_scripts/$2")"
    for setting in $(compgen -v "$prefix"); do
        [[ $setting == "${prefix}METRIC" || $setting == "${prefix}MODEL" ]] ||
            command+=$(quoted "${setting#"$prefix"}=${!setting}")
    done
    arguments+=(--evaluate "$task=${command}CHECKPOINT={checkpoint} RESULTS={output}")
    setting=${prefix}METRIC
    IFS=, read -ra metrics <<<"${!setting:-$3}"
    for metric in "${metrics[@]}"; do arguments+=(--metric "$task=$metric"); done
}

arguments=()
for task in ${TASKS:-caption vqa}; do
    case $task in
        caption) add_evaluation "$task" caption/eval/eval_caption_avg.sh cider ;;
        refcocoplus) add_evaluation "$task" refcoco/eval/eval_refcocoplus_avg.sh acc0.5 ;;
        snli_ve) add_evaluation "$task" snli_ve/eval/eval_snli_ve_avg.sh snli_score ;;
        vqa) add_evaluation "$task" vqa/eval/eval_vqa_avg.sh vqa_score ;;
        video_caption) add_evaluation "$task" caption/eval/video/eval_video_caption.sh cider ;;
        video_vqa) add_evaluation "$task" vqa/eval/video/eval_video_qa_avg.sh vqa_score ;;
        *) unknown "$task" ;;
    esac
done
need "$FIRST" "FIRST"
need "$SECOND" "SECOND"
[[ -n ${DRY_RUN:-} ]] || mkdir -p "$FOLDER"
# shellcheck disable=SC2086  # MERGE holds several words
perform exec unival merge "$FIRST" "$SECOND" --sweep "${SWEEP:-0:1:0.2}" --output "$FOLDER" "${arguments[@]}" ${MERGE:-}
