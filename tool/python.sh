# Sourced by the other scripts in the project's folder: PYTHON = the user's choice, else .venv, else python3.
if [ -z "${PYTHON:-}" ]; then
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
