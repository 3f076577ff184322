# Shared by the procedures of this folder: `source` it first, then `procedure_settings "$@"`.

source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

AVERAGES=logs/ofa/pretrained_models/average_models

procedure_settings() {
    common_help() {
        cat <<'END'
  FOLDER        everything goes there; an interrupted run continues, and finished steps are not done again
  CAPTION_MODEL, REFCOCOPLUS_MODEL, SNLI_VE_MODEL, VQA_MODEL, VIDEO_CAPTION_MODEL, VIDEO_VQA_MODEL
                finetuned models (default: where the tasks' scripts put them)
  COEFFICIENTS  weights of the models in the average, separated by commas; empty: all the same
  MERGE         further flags for unival merge, see docs/merging.md
  All other settings of the target's scripts go to its trainings and to its evaluation (ARCH, NETWORK, TEXT, MAX_EPOCH,
  WORKERS and so on). Only to one of them go:
  DATA          train files and, last, the validation file of the target, separated by commas
  EXTRA         further flags for fairseq-train
  TEST_<SETTING>  a setting of the evaluation alone, as TEST_DATA, TEST_BATCH_SIZE, TEST_EXTRA
  DRY_RUN=1     only show the commands
END
    }
    settings "$@"
}

# choose_target: TARGET's folder among the scripts, and EVALUATION
choose_target() {
    case $TARGET in
        caption | vqa) EVALUATION=averaging/ratatouille/eval/eval_$TARGET.sh ;;
        refcocoplus) EVALUATION=averaging/ratatouille/eval/eval_refcoco.sh ;;
        snli_ve) EVALUATION=snli_ve/eval/eval_snli_ve.sh ;;
        video_caption) EVALUATION=caption/eval/video/eval_video_caption.sh ;;
        video_vqa) EVALUATION=vqa/eval/video/eval_video_qa.sh ;;
        *) unknown "$TARGET" ;;
    esac
}

# unknown TASK: stops
unknown() {
    echo "$0: error: unknown task $1; known are caption, refcocoplus, snli_ve, vqa, video_caption, video_vqa" >&2
    exit 2
}

# others_of TASK: the tasks whose models help
others_of() {
    case $1 in
        video_caption) echo video_vqa ;;
        video_vqa) echo video_caption ;;
        *) tr ' ' '\n' <<<"caption refcocoplus snli_ve vqa" | grep -vx "$1" | xargs ;;
    esac
}

# model_of TASK: its finetuned model
model_of() {
    local setting=${1^^}_MODEL place
    case $1 in
        caption) place=caption/unival_caption_stage_1 ;;
        refcocoplus) place=refcocoplus/unival_refcocoplus ;;
        snli_ve) place=snli_ve/unival_snli_ve ;;
        vqa) place=vqa/unival_vqa ;;
        video_caption) place=caption/unival_video_caption_stage_1 ;;
        video_vqa) place=vqa/unival_video_vqa ;;
        *) unknown "$1" ;;
    esac
    echo "${!setting:-logs/ofa/checkpoints/$place/checkpoint_best.pt}"
}

# finetune_once SCRIPT START FOLDER: an interrupted training continues, a finished one is left alone
finetune_once() {
    local script=$1 start=$2 folder=$3
    if [[ -e $folder/finished ]]; then
        [[ $(<"$folder/finished") == "$start" ]] && return
        echo "$0: error: $folder was trained from $(<"$folder/finished") and not from $start: choose another FOLDER" >&2
        exit 2
    fi
    need "$start" "model to start from"
    echo "== finetuning $start: $folder" >&2
    bash "$ROOT/run_scripts/$script" INIT_FROM="$start" SAVE_DIR="$folder"
    [[ -n ${DRY_RUN:-} ]] || echo "$start" >"$folder/finished"
}

# current FILE INPUT...: whether FILE is there and newer than what it was made of
current() {
    local file=$1 input
    [[ -e $file ]] || return 1
    for input in "${@:2}"; do [[ ! $input -nt $file ]] || return 1; done
}

# average_once OUTPUT MODEL...
average_once() {
    local output=$1
    current "$@" && return
    shift
    echo "== averaging $# models: $output" >&2
    bash "$ROOT/run_scripts/averaging/average.sh" CHECKPOINTS="$(IFS=, && echo "$*")" OUTPUT="$output" \
        MERGE="--overwrite ${MERGE:-}"
}

# evaluate_once MODEL RESULTS: with the target's evaluation script
evaluate_once() {
    local model=$1 results=$2 name chosen=(DATA= EXTRA=)
    current "$results/finished" "$model" && return
    for name in "${!TEST_@}"; do chosen+=("${name#TEST_}=${!name}"); done
    echo "== evaluating $model: $results" >&2
    bash "$ROOT/run_scripts/$EVALUATION" "${chosen[@]}" CHECKPOINT="$model" RESULTS="$results"
    [[ -n ${DRY_RUN:-} ]] || touch "$results/finished"
}
