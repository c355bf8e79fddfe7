#!/bin/sh
# Run the style checks and tests in .venv:  sh tool/run_tests.sh [pytest options]
# Default: the fast tests; `-m slow` runs the slow ones, `-m gpu` those that need a GPU.
set -eu
cd "$(dirname "$0")/.."
. tool/install.sh
install requirements-dev.txt
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$(dirname "$PYTHON")/vermin" --quiet --no-tips --violations --target=3.10- util model tool
"$PYTHON" -m mypy
exec "$PYTHON" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
