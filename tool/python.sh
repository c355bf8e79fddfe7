# Sourced by the other scripts, which set root, the project's folder, where it is not the current one.
# PYTHON: the user's choice, else that of .venv, else python3.
if [ -z "${PYTHON:-}" ]; then
    PYTHON=${root:-.}/.venv/bin/python
    if [ ! -x "$PYTHON" ]; then PYTHON=python3; fi
fi

# A signal to a script is passed on to what it runs, which saves and ends; where nothing runs the script ends. What a
# script runs in the background ignores SIGINT: Ctrl-C is passed on as SIGTERM, a second one as SIGKILL.
child='' stopped=''
stop() { # <exit code of the script> <signal>
    stopped=$1
    kill -s "$2" "${child:-${!:-}}" 2>/dev/null || exit "$1"
}
trap 'stop 75 TERM' TERM
trap 'stop 75 HUP' HUP
trap 'stop 75 USR1' USR1
trap 'if [ "$stopped" = 130 ]; then stop 130 KILL; else stop 130 TERM; fi' INT

# run COMMAND [ARGUMENT ...]: a command that takes long; returns its exit code, or ends a script that was stopped.
run() {
    { "$@" <&3 3<&- & } 3<&0 # what a shell starts with & alone reads nothing
    code=0
    finish || code=$?
    [ -z "$stopped" ] || exit "$code"
    return "$code"
}

# Wait for the command that was last started in the background; its exit code, or that of a script that was stopped.
finish() {
    child=$!
    while :; do
        code=0
        wait "$child" || code=$?
        kill -0 "$child" 2>/dev/null || break # else a signal has ended the wait
    done
    child=''
    case $code in 0 | 75 | 137 | 143) return "${stopped:-$code}" ;; *) return "$code" ;; esac
}
