# Sourced by the other scripts; they set root to the project's folder unless it is the current one.
# PYTHON: the user's choice, else .venv, else python3.
if [ -z "${PYTHON:-}" ]; then
    PYTHON=${root:-.}/.venv/bin/python
    if [ ! -x "$PYTHON" ]; then PYTHON=python3; fi
fi

# Forward signals to the running command, which saves and exits; without one the script exits. Background commands of
# a shell ignore SIGINT, so Ctrl-C is forwarded as SIGTERM, and a second Ctrl-C as SIGKILL.
child='' stopped=''
stop() { # <exit code of the script> <signal>
    stopped=$1
    running=${child:-${!:-}}
    # The second question is for dash: if another signal comes during the first kill, its exit code is lost.
    kill -s "$2" "$running" 2>/dev/null || kill -0 "$running" 2>/dev/null || exit "$1"
}
trap 'stop 75 TERM' TERM
trap 'stop 75 HUP' HUP
trap 'stop 75 USR1' USR1
trap 'if [ "$stopped" = 130 ]; then stop 130 KILL; else stop 130 TERM; fi' INT

# run COMMAND [ARGUMENT ...]: run a long command; return its exit code, or exit if the script was stopped.
run() {
    { "$@" <&3 3<&- & } 3<&0 # keep stdin: a shell redirects it from /dev/null for background commands
    code=0
    finish || code=$?
    [ -z "$stopped" ] || exit "$code"
    return "$code"
}

# Wait for the last background command; return its exit code, or the script's own if it was stopped.
finish() {
    child=$!
    while :; do
        code=0
        wait "$child" || code=$?
        kill -0 "$child" 2>/dev/null || break # still alive: a signal interrupted the wait
    done
    child=''
    case $code in 0 | 75 | 137 | 143) return "${stopped:-$code}" ;; *) return "$code" ;; esac
}
