# Shared by all run scripts: `source` it first, then `settings "$@"`.
#
# Every knob of a script is an environment variable with a default, and may also be given as KEY=VALUE argument.
# The same script runs on the CPU, on one GPU, on several (torchrun) and under Slurm (one task per node).

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -z ${VIRTUAL_ENV:-} && -d $ROOT/.venv/bin ]]; then
    PATH=$ROOT/.venv/bin:$PATH
fi
export PYTHONWARNINGS=${PYTHONWARNINGS:-ignore}

# settings KEY=VALUE...: takes the arguments of a script; anything else, or --help, prints the script's own header
settings() {
    local argument
    for argument in "$@"; do
        case $argument in
            [A-Z]*=*) export "${argument%%=*}=${argument#*=}" ;;
            *)
                awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
                [[ $argument == -h || $argument == --help ]] && exit 0
                echo "$0: error: unknown argument '$argument': settings are given as KEY=VALUE" >&2
                exit 2
                ;;
        esac
    done
}

# need FILE WHAT: stops with a clear line when an input is missing
need() {
    [[ -e $1 ]] || { echo "$0: error: $1: no such file or folder ($2)" >&2; exit 2; }
}

count_gpus() {
    if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
        tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c . || true
    elif command -v nvidia-smi >/dev/null; then
        nvidia-smi --list-gpus 2>/dev/null | wc -l
    else
        echo 0
    fi
}

# flags for the number format that suits the machine
default_precision() {
    if (($(count_gpus) > 0)); then
        echo "--fp16 --fp16-scale-window 512"
    fi
}

# launch COMMAND ARGUMENTS...: one process, or one per GPU, on all nodes of a Slurm job
#   PROCESSES  processes on this node (default: number of GPUs, at least 1)
launch() {
    local command
    command=$(command -v "$1") || { echo "$0: error: $1 is not installed: pip install -e $ROOT" >&2; exit 2; }
    shift
    local gpus processes nodes=${SLURM_NNODES:-1}
    gpus=$(count_gpus)
    processes=${PROCESSES:-$((gpus > 0 ? gpus : 1))}
    if ((processes == 1 && nodes == 1)); then
        exec "$command" "$@"
    fi
    local rendezvous=(--standalone)
    if ((nodes > 1)); then
        rendezvous=(--nnodes "$nodes" --node-rank "$SLURM_NODEID" --master-port "${MASTER_PORT:-29500}"
            --master-addr "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)")
    fi
    exec torchrun "${rendezvous[@]}" --nproc-per-node "$processes" "$command" "$@"
}
