#!/bin/sh
# All tests in an environment of their own:  sh tool/run_tests.sh [pytest options]
set -eu
cd "$(dirname "$0")/.."
. tool/install.sh
install requirements-dev.txt
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest "$@"
