# Sourced by quickstart.sh and run_tests.sh in the project's folder.
# install FILE: makes .venv (kept if there) with the packages of a requirements file; sets PYTHON.

install() {
    PYTHON=.venv/bin/python
    if [ ! -x "$PYTHON" ]; then
        echo "== making .venv"
        python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
            echo "error: python3 is $(python3 --version 2>&1), need 3.10 or newer" >&2
            exit 2
        }
        python3 -m venv .venv || {
            echo "error: python3 cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
            exit 2
        }
    fi
    echo "== installing $1 (about 6 GB with CUDA libraries the first time)"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$1"
}
