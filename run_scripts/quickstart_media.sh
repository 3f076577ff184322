#!/usr/bin/env bash
# After quickstart.sh: teaches its captioner films and sounds. Digits move, stay, or turn into others, and are described and
# asked about; beeps, tones and noises are described. Each is evaluated on digits and sounds that were never met before.
#
# usage: bash run_scripts/quickstart_media.sh [KEY=VALUE ...]
#   TASKS         what to teach (default: "video_caption video_vqa_gen audio_caption"), each from the captioner; questions
#                 about films from the model that captions them, if it is there
#   FOLDER        folder of quickstart.sh (default: runs/quickstart); everything goes there, an interrupted run continues
#   INIT_FROM     captioner to start from (default: FOLDER/model/checkpoint_best.pt); empty trains from scratch
#   MAX_EPOCH, LR, BATCH_SIZE, SEED, WORKERS
source "$(dirname "${BASH_SOURCE[0]}")/digits.sh"
settings "$@"

FOLDER=${FOLDER:-runs/quickstart}
DATA=$FOLDER/media_data
INIT_FROM=${INIT_FROM-$FOLDER/model/checkpoint_best.pt}
TEXT=$(digits_text "$DATA")
export TEXT
[[ -z $INIT_FROM ]] || need "$INIT_FROM" "INIT_FROM; bash run_scripts/quickstart.sh makes it"

make_digits "$DATA" --tasks video_caption,video_vqa_gen,audio_caption

# evaluated_every EPOCHS: flags; without an evaluation after the last epoch there would be no best checkpoint
evaluated_every() {
    local epochs=${MAX_EPOCH:-$1}
    echo --validate-interval $((epochs % 8 ? 1 : 8))
}

# Films and sounds are few and short, so that several rounds through the files are needed; not every one is evaluated.
# Whether a word fits a film is learned only while the film's features keep still (see quickstart_answers.sh).
FILMS=(--image-dir "$DATA" --video-encoder-name timm_tiny --patch-frame-size 64)
[[ -z $INIT_FROM ]] || FILMS+=(--video-model-path "$INIT_FROM")
SOUNDS=(--image-dir "$DATA" --audio-encoder-name pann_tiny --max-audio-len 48000)
CAPTIONS=(--selected-cols 0,4,2 --eval-cider --eval-args '{"beam":1,"max_len_b":20}')

CAPTIONER=$INIT_FROM

for task in ${TASKS:-video_caption video_vqa_gen audio_caption}; do
    INIT_FROM=$CAPTIONER
    case $task in
        video_caption)
            name=video METRIC=exact_match EPOCHS=24
            FLAGS=("${FILMS[@]}" "${CAPTIONS[@]}" $(evaluated_every $EPOCHS))
            EVALUATION=(caption/eval/video/eval_video_caption.sh VIDEO_DIR="$DATA" NUM_FRAMES=4 PATCH_FRAME_SIZE=64 SPLIT=)
            ;;
        video_vqa_gen)
            name=video_vqa METRIC=vqa_score EPOCHS=8
            films=$FOLDER/video_caption/checkpoint_best.pt
            kept=()
            if [[ -n $CAPTIONER && ( -e $films || -n ${DRY_RUN:-} ) ]]; then
                INIT_FROM=$films
                kept=(--freeze-resnet-video --freeze-video-encoder --nograd)
            fi
            FLAGS=("${FILMS[@]}" "${kept[@]}" --selected-cols 0,5,2,3,4 --ans2label-file "$DATA/video_answers.json" --prompt-type prev_output)
            EVALUATION=(vqa/eval/video/eval_video_qa.sh VIDEO_DIR="$DATA" NUM_FRAMES=4 PATCH_FRAME_SIZE=64
                ANSWERS="$DATA/video_answers.json" INFERENCE_TYPE=allcand EMA_EVAL=)
            ;;
        audio_caption)
            name=audio METRIC=exact_match EPOCHS=32
            FLAGS=("${SOUNDS[@]}" "${CAPTIONS[@]}" $(evaluated_every $EPOCHS))
            EVALUATION=(caption/eval/audio/eval_audio_caption.sh AUDIO_DIR="$DATA" SPLIT= EXTRA="--max-audio-len 48000")
            ;;
        *)
            echo "$0: error: TASKS: unknown task $task; known are video_caption, video_vqa_gen, audio_caption" >&2
            exit 2
            ;;
    esac
    teach_digits "$task" "$name"
done
