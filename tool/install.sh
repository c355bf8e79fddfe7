# Sourced by quickstart.sh and run_tests.sh in the project's folder.
# install FILE: creates .venv if needed, installs a requirements file into it and sets PYTHON.
PYTHON=python3
. tool/python.sh

install() {
    if ! python3 -c 'import re, sys
least = re.search(r"requires-python = .>=(\d+)\.(\d+)", open("pyproject.toml").read())
sys.exit(sys.version_info < tuple(map(int, least.groups())))'; then
        echo "error: python3 is $(python3 --version 2>&1), need$(sed -n 's/^requires-python =//p' pyproject.toml)" >&2
        exit 2
    fi
    # An interrupted run or an upgrade of Python can leave a .venv without pip or Python.
    if ! .venv/bin/python -c 'import pip' 2>/dev/null && ! .venv/bin/python -m ensurepip >/dev/null 2>&1; then
        if [ -e .venv ]; then echo "== recreating .venv: it has no working Python with pip"; else echo "== creating .venv"; fi
        run python3 -m venv --clear .venv || {
            code=$?
            [ "$code" -gt 128 ] && exit "$code"
            echo "error: python3 cannot create a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
            exit 2
        }
    fi
    PYTHON=.venv/bin/python
    echo "== installing $1 into .venv (about 6 GB the first time, with CUDA libraries)"
    run "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$1"
}
