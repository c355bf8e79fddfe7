# Sourced by the other scripts in the project's folder.
# PYTHON: the user's choice, else that of .venv, else python3.
if [ -z "${PYTHON:-}" ]; then
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi

# run COMMAND [ARGUMENT ...]: a command that takes long. Signals to this script reach it, and its exit
# code is returned: a shell alone would end on SIGTERM and leave the command running.
run() {
    child='' asked=''
    for name in TERM HUP USR1; do
        trap "asked=$name; [ -z \"\$child\" ] || kill -$name \"\$child\" 2>/dev/null || :" "$name"
    done
    trap : INT # Ctrl-C in a terminal reaches the command by itself
    # What a shell starts with & ignores SIGINT and reads nothing: both are undone.
    {
        "$PYTHON" -c 'import os, signal, sys
for name in ("SIGINT", "SIGQUIT"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])' "$@" <&3 3<&- &
    } 3<&0
    child=$!
    [ -z "$asked" ] || kill -"$asked" "$child"
    while :; do
        code=0
        wait "$child" || code=$?
        kill -0 "$child" 2>/dev/null || break # else a signal has ended the waiting
    done
    trap - TERM HUP USR1 INT
    return "$code"
}
