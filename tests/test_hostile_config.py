"""Malicious and extreme configs: each gives one sentence, immediately."""

from dataclasses import replace
from pathlib import Path

import pytest

from model import check_network
from tests.conftest import RunTool, assert_one_sentence
from util.config import Config, check_test, check_train, dump_config, load_config
from util.config.keys import FIELDS
from util.config.load import parse_value
from util.error import ConfigError

HOSTILE = [
    *("", " ", "None", "~", "null", "no", "off", "yes", "True", "nan", "inf", "-inf", "-1", "0"),
    *("1e-400", "1e39", "1e300", "1e308", "1e400", "9" * 400, "9" * 5000, "-" + "9" * 30, "0.5"),
    *(
        "010",
        "0x10",
        "0o10",
        "1_000",
        "1:30",
        "\u00b2",
        "\u0661",
        "80001",
        "16777217",
        str(2**63),
        str(2**64),
    ),
    *("2026-13-45", "!!float abc", "&a 1", "*a", "<<", "[", "]", "{", "[" * 20000, "{a: " * 5000),
    *("[1, [2]]", "[]", "{}", "[nan]", "[1e400]", "[true]", "{0: 1, 0: 2}", "{0: 1, 00: 2}"),
    *("{a: b}", "{? [1] : 2}", "{0: 1e30}", "[&a 1, *a]", "x" * 10000, "x/" * 5000, "\0", "a\nb"),
    *("\x1b[31mred", "\udcff", "~nosuchuser/x", "~", "/dev/null", "/dev/full", "..", "a b #c"),
    *("tcp://host:abc", "tcp://[::1", "tcp://", "file:///x", "env://", "psp", "psa", "auto"),
]


def check_all(cfg: Config) -> None:
    """Run all checks that precede a run."""
    check_train(cfg)
    check_test(cfg)
    check_network(cfg)
    check_network(cfg, is_test=True)


@pytest.mark.parametrize("name", FIELDS)
def test_every_key_survives_every_value(tiny: Path, tmp_path: Path, name: str) -> None:
    cfg = usual = load_config(tiny)
    for value in HOSTILE:
        try:
            cfg = replace(usual, **{name: parse_value(name, value, source="x", folder=tmp_path)})
            check_all(cfg)
        except ConfigError as error:
            assert len(str(error)) < 1000 and str(error).isprintable(), (value, error)
    (tmp_path / "dump.yaml").write_text(dump_config(cfg))
    assert load_config(tmp_path / "dump.yaml") == cfg


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (LAUGHS, "line 1, column 4: anchors and aliases (&, *) are not supported"),
        ("[" * 20000, "nested too deeply"),
        ("DATA:\n" + "".join(" " * i + "a:\n" for i in range(1, 300)), "nested too deeply"),
        ("DATA: {<<: {classes: 3}}", "merge keys (<<) are not supported"),
        ("DATA: &d {classes: 3}\nTEST:\n  <<: *d\n", "anchors and aliases"),
        ("DATA: {classes: !!float abc}", "tags ('tag:yaml.org,2002:float') are not supported"),
        ("DATA: !!python/object/apply:os.system [ls]", "are not supported, write the plain value"),
        (
            "DATA: {classes: 3}\n---\nDATA: {}",
            "line 2, column 1: not valid YAML (but found another",
        ),
        ("DATA: {? [1] : 2}", "a key must be plain text"),
        ("DATA: {data_root: 'a\x00b'}", "the character U+0000 is not allowed"),
        ('DATA: {data_root: "a\\0b"}', "DATA.data_root 'a\\x00b' holds a control character"),
        ("DATA: {data_root: /x, classes: " + "9" * 400 + "}", "at most 40 characters"),
        ("DATA: {data_root: /x, classes: 2026-13-45}", "a whole number, got '2026-13-45'"),
        ("DATA: {data_root: /x, classes: 010}", "got '010' in {path}: write it without leading"),
        ("DATA: {label_map: {0: 1, 0: 2}}", "'0' is given twice"),
        ("DATA: {label_map: {0: 1, +0: 2}}", "0 is given twice"),
        ("TRAIN: {loss: no}", "TRAIN.loss must be one of ce, ohem, got no"),
        ("TRAIN: {base_lr: 1e39}", "TRAIN.base_lr must be at most 1000, got 1e+39"),
        ("TRAIN: {save_path: ~nosuchuser/x}", "home folder of a user who does not exist"),
        ("x" * 300000, "has 300000 bytes"),
        ("TRAIN: {epochs: " + "x" * 5000 + "}", "... (5000 characters)' in"),
        ("\udc80", "is not UTF-8 text (byte 0x80 at offset 0)"),
        ("", "must hold sections"),
    ],
)
def test_a_hostile_file_is_one_sentence(
    tmp_path: Path, run_tool: RunTool, text: str, part: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    code, _, err = run_tool("train", "--config", path)
    assert_one_sentence(code, err, part.format(path=path))


def test_escapes_do_not_reach_the_terminal(tiny: Path, run_tool: RunTool) -> None:
    code, _, err = run_tool("train", "--config", tiny, "TRAIN.loss", "\x1b[31mred\nerror: fake")
    assert_one_sentence(code, err, r"got \x1b[31mred\nerror: fake")


EXTREMES = [  # numbers at their limits; combined in one run if none of them ends it
    "manual_seed 9223372036854775807 scale_min 10 scale_max 10 rotate_min 180 rotate_max 180",
    "scale_min 0.01 scale_max 0.01 aux_weight 1000 weight_decay 1000 momentum 1 power 100",
    "base_lr 1000 nonfinite skip epochs 2",
    "ignore_label 65535 ohem_min_kept 2147483647 loss ohem ohem_threshold 1e-300",
    "train_h 8193 batch_size 2 timeout_minutes 100000 print_freq 2147483647",
    "batch_size 65536",
    "accumulate_steps 65536",
    "workers 16 save_every_steps 2147483647 save_every_minutes 1e6 train_gpu [1023]",
    "arch psa shrink_factor 64 mask_h 1 mask_w 1 normalization_factor 1e-6",
    "arch psa mask_h 4097",
    "world_size 65536 rank 65535 timeout_minutes 1e-9",
    "class_weights [1e6,1e6,1e6]",
    "classes 65535 ignore_label 65535 train_h 9 train_w 9",
]


@pytest.mark.slow
@pytest.mark.parametrize("words", EXTREMES)
def test_a_training_with_numbers_at_their_limits(tiny: Path, run_tool: RunTool, words: str) -> None:
    code, _, err = run_tool("train", "--config", tiny, *words.split())
    assert code in (0, 2), err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "scales [0.01] base_size 1",
        "scales [100] base_size 1 index_step 1",
        "test_w 8193 index_step 1 batch_windows 1",
        "index_start 2147483647",
        "test_gpu [1023] batch_windows 65536 index_step 2147483647",
    ],
)
def test_a_test_with_numbers_at_their_limits(tiny: Path, run_tool: RunTool, words: str) -> None:
    code, _, err = run_tool("train", "--config", tiny)
    assert code == 0, err
    code, _, err = run_tool("test", "--config", tiny, *words.split())
    assert code in (0, 2), err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("word", "key"),
    [
        *(("lr", "TRAIN.base_lr"), ("seed", "TRAIN.manual_seed"), ("TEST.scale", "TEST.scales")),
        *(("num_classes", "DATA.classes"), ("ignore_index", "TRAIN.ignore_label")),
    ],
)
def test_names_of_other_projects_lead_to_the_key(tiny: Path, word: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key '{word}' .*; nearest: {key}$"):
        load_config(tiny, [word, "1"])
