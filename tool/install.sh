# Sourced by quickstart.sh and run_tests.sh in the project's folder.
# install FILE: makes .venv, unless it works, with the packages of a requirements file; sets PYTHON.
PYTHON=python3
. tool/python.sh

install() {
    if ! python3 -c 'import re, sys
least = re.search(r"requires-python = .>=(\d+)\.(\d+)", open("pyproject.toml").read())
sys.exit(sys.version_info < tuple(map(int, least.groups())))'; then
        echo "error: python3 is $(python3 --version 2>&1), need$(sed -n 's/^requires-python =//p' pyproject.toml)" >&2
        exit 2
    fi
    # A run that was interrupted, or an upgrade of Python, leaves a .venv without pip or without Python.
    if ! .venv/bin/python -c 'import pip' 2>/dev/null && ! .venv/bin/python -m ensurepip >/dev/null 2>&1; then
        if [ -e .venv ]; then echo "== making .venv again: it has no working Python with pip"; else echo "== making .venv"; fi
        run python3 -m venv --clear .venv || {
            code=$?
            [ "$code" -gt 128 ] && exit "$code"
            echo "error: python3 cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
            exit 2
        }
    fi
    PYTHON=.venv/bin/python
    echo "== installing $1 into .venv (the first time about 6 GB with CUDA libraries)"
    run "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$1"
}
