#!/usr/bin/env bash
# The way of UnIVAL on the CPU in minutes: pretrains the quickstart's network on pictures, films and sounds of digits through the three
# scripts of run_scripts/pretraining, then finetunes a captioner from it in half of the quickstart's updates and evaluates it.
#
# usage: bash run_scripts/quickstart_pretraining.sh [KEY=VALUE ...]
#   FOLDER        where everything goes (default: runs/quickstart_pretraining); an interrupted run continues there
#   STAGES        what to do, of "s1 s2 s2_hs caption" (default: all of it)
#   PROCESSES     processes on this machine (default: 2 on the CPU, else one per GPU)
#   TRAIN_ROWS, SEED, WORKERS
source "$(dirname "${BASH_SOURCE[0]}")/digits.sh"
settings "$@"

FOLDER=${FOLDER:-runs/quickstart_pretraining}
DATA=$FOLDER/data
NEGATIVES=$FOLDER/negative_sample
gpus=$(count_gpus)
export PROCESSES=${PROCESSES:-$((gpus > 0 ? gpus : 2))}
for step in ${STAGES:=s1 s2 s2_hs caption}; do
    [[ " s1 s2 s2_hs caption " == *" $step "* ]] ||
        { echo "$0: error: STAGES: unknown stage $step; known are s1, s2, s2_hs, caption" >&2; exit 2; }
done
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # so small a network gains nothing from more
TRAIN_ROWS=${TRAIN_ROWS:-6000} make_digits "$DATA" --easy-files 2 --films 800 --sounds 300 \
    --tasks caption,pretrain_caption,pretrain_image_text,pretrain_qa,pretrain_ground,pretrain_video,pretrain_audio
TEXT=$(digits_text "$DATA")
export TEXT
if [[ ! -e $NEGATIVES ]]; then
    echo "== collecting wrong captions and answers"
    perform python "$ROOT/dataset_tools/negative_samples.py" --output "$NEGATIVES" \
        --task unify_task "$DATA"/pretrain_{caption,qa,video,audio}_train_{3,4,5,6,7,8}.tsv
fi

# stage NAME SETTINGS...: pretrains through the script of that name
stage() {
    local run=$FOLDER/$1
    echo "== pretraining, stage $1 (log: $run/train.log)"
    bash "$ROOT/run_scripts/pretraining/unival_$1.sh" SAVE_DIR="$run" NEG_SAMPLE_DIR="$NEGATIVES" IMAGE_DIR="$DATA" \
        IMAGE_TEXT_VQA_DATA="$DATA/pretrain_qa_train_8.tsv" IMAGE_TEXT_VQA_CNT=2 \
        IMAGE_TEXT_GROUND_DATA="$DATA/pretrain_ground_train_7.tsv" IMAGE_TEXT_GROUND_CNT=2 \
        IMAGE_TEXT_DATA="$DATA/pretrain_image_text_train_6.tsv" IMAGE_TEXT_CNT=8 \
        ARCH=unival_tiny NETWORK=--entangle-position-embedding RESNET= MEDIA_FLAGS= MAX_IMAGE_SIZE=96 SAMPLE_PATCH_NUM=1000 \
        DROPOUT=0 DROP_PATH=0 CLIP_NORM=1.0 UPDATE_FREQ=1 WORKERS="${WORKERS:-1}" SAVE_INTERVAL_UPDATES=500 KEEP_LAST_EPOCHS=1 \
        EXTRA="--augmentation none --adam-betas (0.9,0.98) --max-audio-len 48000 --log-interval 100 ${EXTRA:-}" "${@:2}" 2>&1 |
        follow_log "$run" || { echo "$0: error: stage $1 failed, see $run/train.log" >&2; exit 1; }
}

# batch ROWS: of each process, so that all together have as many
batch() { echo $((($1 + PROCESSES - 1) / PROCESSES)); }

captions() { printf "$DATA/pretrain_caption_train_%d.tsv," "$@" | sed 's/,$//'; }

FILMS_AND_SOUNDS=(VIDEO_ENCODER=timm_tiny PATCH_FRAME_SIZE=64 VIDEO_DATA="$DATA/pretrain_video_train_4.tsv" VIDEO_CNT=2
    VIDEO_TEXT_DATA="$DATA/pretrain_video_train_5.tsv" VIDEO_TEXT_CNT=4 AUDIO_ENCODER=pann_tiny HOP_SIZE=480
    AUDIO_DATA="$DATA/pretrain_audio_train_4.tsv" AUDIO_CNT=8 AUDIO_TEXT_DATA="$DATA/pretrain_audio_train_5.tsv" AUDIO_TEXT_CNT=8)

for step in $STAGES; do
    case $step in
        s1) # the first two files have one digit a picture
            stage s1 DATA="$(captions 1 2 3 4 5 6)" INIT_FROM= MAX_EPOCH=6 BATCH_SIZE="$(batch 8)" PATCH_IMAGE_SIZE=64 LR=1e-3
            ;;
        s2)
            stage s2 DATA="$(captions 7 8)" INIT_FROM="$FOLDER/s1/checkpoint_last.pt" RESNEXT="$FOLDER/s1/checkpoint_last.pt" \
                "${FILMS_AND_SOUNDS[@]}" NUM_FRAMES=4 MAX_EPOCH=2 BATCH_SIZE="$(batch 8)" PATCH_IMAGE_SIZE=64 LR=1e-3
            ;;
        s2_hs)
            stage s2_hs DATA="$(captions 3)" INIT_FROM="$FOLDER/s2/checkpoint_last.pt" \
                "${FILMS_AND_SOUNDS[@]}" VIDEO_CNT=4 VIDEO_TEXT_CNT=8 NUM_FRAMES=8 MAX_EPOCH=1 BATCH_SIZE="$(batch 8)" PATCH_IMAGE_SIZE=80 LR=5e-4
            ;;
        caption)
            echo "== finetuning captions (log: $FOLDER/caption/train.log)"
            PROCESSES=1 MAX_EPOCH=${MAX_EPOCH:-8} train_on_digits caption "$FOLDER/caption" "$DATA/" --selected-cols 0,4,2 \
                --finetune-from-model "$FOLDER/s2_hs/checkpoint_last.pt" \
                --eval-cider --eval-args '{"beam":1,"max_len_b":16}' --best-checkpoint-metric exact_match
            echo "== evaluating on the test pictures"
            bash "$ROOT/run_scripts/caption/eval/eval_caption.sh" DATA="$DATA/test.tsv" SELECTED_COLS=0,4,2 \
                CHECKPOINT="$FOLDER/caption/checkpoint_best.pt" PATCH_IMAGE_SIZE=64 RESULTS="$FOLDER/results" BATCH_SIZE=50 \
                WORKERS=0 BEAM=5 MAX_LEN_B=16 NO_REPEAT=0
            ;;
    esac
done
