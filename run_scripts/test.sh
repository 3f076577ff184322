#!/usr/bin/env bash
# Sets up (see setup.sh) and runs all tests and checks.
#
# usage: bash run_scripts/test.sh [KEY=VALUE ...]
#   PYTEST        arguments for pytest (default: all tests)
#   TEST_WORKERS  processes that test side by side (default: 2; up to 5 GB of memory each)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
settings "$@"

bash "$ROOT/run_scripts/setup.sh"
cd "$ROOT"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# files in their order: those with few but long tests would come last and leave one process without work
# shellcheck disable=SC2086  # PYTEST holds several words
exec .venv/bin/python -m pytest --numprocesses "${TEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder ${PYTEST:-}
