#!/usr/bin/env bash
# Installs the package with everything for quickstart and tests into .venv, unless it is there already.
#
# usage: bash run_scripts/setup.sh [PYTHON=python3.11]
#   PYTHON        interpreter, 3.10 to 3.13 (default: python3). On 3.11 the versions are pinned by constraints.txt
# Needs a C++ compiler (fairseq has C++ parts) and about 7 GB of disk, most of it torch with its CUDA libraries.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
settings "$@"

cd "$ROOT"
PYTHON=${PYTHON:-python3}
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
    3.10 | 3.11 | 3.12 | 3.13) ;;
    *)
        echo "$0: error: Python $version is not supported: name one from 3.10 to 3.13, e.g. PYTHON=python3.11" >&2
        exit 2
        ;;
esac
if [[ -x .venv/bin/unival ]] && [[ .venv/.installed -nt setup.py ]]; then
    exit 0
fi

echo "== installing into $ROOT/.venv (Python $version)"
"$PYTHON" -m venv .venv
pins=()
[[ $version == 3.11 ]] && pins=(-c constraints.txt)
# fairseq is built against the torch that will run it; pip's own build environment would download a second one
.venv/bin/python -m pip install --quiet "${pins[@]}" torch torchvision numpy cython setuptools wheel
.venv/bin/python -m pip install --quiet "${pins[@]}" --no-build-isolation fairseq-fixed==0.12.3.1
.venv/bin/python -m pip install --quiet "${pins[@]}" --no-build-isolation -e ".[dev,coco,data,fast,images,video,audio]"
touch .venv/.installed
