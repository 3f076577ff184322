#!/usr/bin/env bash
# After quickstart.sh: teaches its captioner to answer questions, to find what expressions mean, and to judge statements,
# on the same digits; evaluates each on pictures of digits that were never seen, and draws contact sheets.
#
# usage: bash run_scripts/quickstart_answers.sh [KEY=VALUE ...]
#   TASKS         what to teach, each from the captioner (default: "vqa_gen refcoco snli_ve")
#   FOLDER        folder of quickstart.sh (default: runs/quickstart); everything goes there, an interrupted run continues
#   INIT_FROM     captioner to start from (default: FOLDER/model/checkpoint_best.pt); empty trains from scratch
#   MAX_EPOCH     (default: 16 for questions, else 8)      LR, BATCH_SIZE, TRAIN_ROWS, SEED, WORKERS
source "$(dirname "${BASH_SOURCE[0]}")/digits.sh"
settings "$@"

FOLDER=${FOLDER:-runs/quickstart}
DATA=$FOLDER/answers_data
INIT_FROM=${INIT_FROM-$FOLDER/model/checkpoint_best.pt}
TEXT=$(digits_text "$DATA")
export TEXT
[[ -z $INIT_FROM ]] || need "$INIT_FROM" "INIT_FROM; bash run_scripts/quickstart.sh makes it"

make_digits "$DATA" --tasks vqa_gen,refcoco,snli_ve

# Whether a word fits a picture is learned only while the picture's features keep still; where a thing is, needs new ones.
kept=()
[[ -z $INIT_FROM ]] || kept=(--freeze-resnet --freeze-image-encoder)

for task in ${TASKS:-vqa_gen refcoco snli_ve}; do
    case $task in
        vqa_gen)
            name=vqa METRIC=vqa_score EPOCHS=16
            FLAGS=(--selected-cols 0,5,2,3,4 --ans2label-file "$DATA/answers.json" --prompt-type prev_output "${kept[@]}")
            EVALUATION=(vqa/eval/eval_vqa.sh ANSWERS="$DATA/answers.json" INFERENCE_TYPE=allcand ZERO_SHOT=)
            ;;
        refcoco)
            name=refcoco METRIC=score EPOCHS=8
            FLAGS=(--selected-cols 0,4,2,3 --max-image-size 64 --acc-thresh 0.5 --eval-acc --eval-args '{"beam":1}')
            EVALUATION=(refcoco/eval/eval_refcoco.sh MAX_IMAGE_SIZE=64 ACC_THRESH=0.5,0.7 AREAS= NO_REPEAT=0)
            ;;
        snli_ve)
            name=snli METRIC=snli_score EPOCHS=8
            FLAGS=(--selected-cols 0,2,3,4,5 --prompt-type prev_output "${kept[@]}")
            EVALUATION=(snli_ve/eval/eval_snli_ve.sh)
            ;;
        *)
            echo "$0: error: TASKS: unknown task $task; known are vqa_gen, refcoco, snli_ve" >&2
            exit 2
            ;;
    esac
    teach_digits "$task" "$name"
done
