"""Signals: recorded within a StopRequest, otherwise they end a tool, even while it imports."""

import signal
import sys
from pathlib import Path

import pytest

from util.distributed import StopRequest
from util.error import run_cli


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_is_noted_within_a_stop_request_and_ends_the_tool_outside(
    capsys: pytest.CaptureFixture, name: str
) -> None:
    number, seen = getattr(signal, name), []
    before = signal.getsignal(number)

    def main() -> None:
        with StopRequest() as stop:
            assert not stop.name
        with pytest.raises(SystemExit):
            signal.raise_signal(number)
        seen.append("ended")
        raise SystemExit(0)

    with pytest.raises(SystemExit):
        run_cli(main)
    assert seen == ["ended"] and signal.getsignal(number) == before

    def loop() -> None:
        with StopRequest() as stop:
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGTERM)
            assert stop.name == name
        signal.raise_signal(number)  # again, while it saves
        seen.append("saved")

    run_cli(loop)
    assert seen == ["ended", "saved"]

    def start() -> None:
        signal.raise_signal(number)
        raise AssertionError

    with pytest.raises(SystemExit) as stop:
        run_cli(start)
    assert stop.value.code == 75 and capsys.readouterr().err == f"stopped by {name}\n"
    assert signal.getsignal(number) == before


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run_cli(lambda: signal.raise_signal(signal.SIGHUP))
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.name
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_is_not_noted() -> None:
    with StopRequest(signal.SIGINT) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_tool_obeys_from_its_first_lines(tmp_path: Path) -> None:
    """Before the slow imports."""
    from tests.conftest import ROOT, command

    script = (
        f"import signal, sys; sys.argv[0] = {str(ROOT / 'tool/train.py')!r}; "
        f"sys.path.insert(0, {str(ROOT)!r}); import util.error; signal.raise_signal(10)"
    )
    assert command(sys.executable, "-c", script).returncode == 75
