# Sourced by the other scripts: PYTHON = the user's choice, else .venv of the project's folder $root (default: the
# current one), else python3.
if [ -z "${PYTHON:-}" ]; then
    PYTHON=${root:-.}/.venv/bin/python
    if [ ! -x "$PYTHON" ]; then PYTHON=python3; fi
fi
