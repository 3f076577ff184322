#!/usr/bin/env bash
# After quickstart.sh: teaches its captioner to answer questions, to find what expressions mean, and to judge statements,
# on the same digits; evaluates each on pictures of digits that were never seen, and draws contact sheets.
#
# usage: bash run_scripts/quickstart_answers.sh [KEY=VALUE ...]
#   TASKS         what to teach, each from the captioner (default: "vqa_gen refcoco snli_ve")
#   FOLDER        folder of quickstart.sh (default: runs/quickstart); everything goes there, an interrupted run continues
#   INIT_FROM     captioner to start from (default: FOLDER/model/checkpoint_best.pt); empty trains from scratch
#   MAX_EPOCH     (default: 16 for questions, else 8)      LR, BATCH_SIZE, TRAIN_ROWS, SEED, WORKERS
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
settings "$@"

FOLDER=${FOLDER:-runs/quickstart}
DATA=$FOLDER/answers_data
INIT_FROM=${INIT_FROM-$FOLDER/model/checkpoint_best.pt}
TEXT=$(digits_text "$DATA")
export TEXT
[[ -z $INIT_FROM ]] || need "$INIT_FROM" "INIT_FROM; bash run_scripts/quickstart.sh makes it"

make_digits "$DATA" --tasks vqa_gen,refcoco,snli_ve

# Whether a word fits a picture is learned only while the picture's features keep still; where a thing is, needs new ones.
kept=(--freeze-resnet --freeze-image-encoder)

# evaluate_digits SCRIPT SETTINGS...: through the evaluation script of the task
evaluate_digits() {
    bash "$ROOT/run_scripts/$1" DATA="$DATA/${name}_test.tsv" CHECKPOINT="$run/checkpoint_best.pt" WORKERS=0 BATCH_SIZE=50 \
        RESULTS="$FOLDER/results" PATCH_IMAGE_SIZE=64 "${@:2}"
}

for task in ${TASKS:-vqa_gen refcoco snli_ve}; do
    run=$FOLDER/$task
    case $task in
        vqa_gen)
            name=vqa
            flags=(--selected-cols 0,5,2,3,4 --ans2label-file "$DATA/answers.json" --prompt-type prev_output)
            metric=vqa_score epochs=16 trunk=("${kept[@]}")
            evaluation=(vqa/eval/eval_vqa.sh ANSWERS="$DATA/answers.json" INFERENCE_TYPE=allcand ZERO_SHOT=)
            ;;
        refcoco)
            name=refcoco
            flags=(--selected-cols 0,4,2,3 --max-image-size 64 --acc-thresh 0.5 --eval-acc --eval-args '{"beam":1}')
            metric=score epochs=8 trunk=()
            evaluation=(refcoco/eval/eval_refcoco.sh MAX_IMAGE_SIZE=64 ACC_THRESH=0.5,0.7 AREAS= NO_REPEAT=0)
            ;;
        snli_ve)
            name=snli
            flags=(--selected-cols 0,2,3,4,5 --prompt-type prev_output)
            metric=snli_score epochs=8 trunk=("${kept[@]}")
            evaluation=(snli_ve/eval/eval_snli_ve.sh)
            ;;
        *)
            echo "$0: error: TASKS: unknown task $task; known are vqa_gen, refcoco, snli_ve" >&2
            exit 2
            ;;
    esac
    echo "== training $task (log: $run/train.log)"
    [[ -z $INIT_FROM ]] || flags+=(--finetune-from-model "$INIT_FROM" "${trunk[@]}")
    MAX_EPOCH=${MAX_EPOCH:-$epochs} train_on_digits "$task" "$run" "$DATA/${name}_" "${flags[@]}" --dropout 0 \
        --best-checkpoint-metric "$metric"
    echo "== evaluating $task on the test pictures"
    evaluate_digits "${evaluation[@]}"
    perform python "$ROOT/dataset_tools/contact_sheet.py" --tsv "$DATA/${name}_test.tsv" --task "$task" --limit 36 \
        --predictions "$FOLDER/results/${name}_test_predict.json" --output "$FOLDER/${task}_sheet.png"
    echo "contact sheet: $FOLDER/${task}_sheet.png"
done
