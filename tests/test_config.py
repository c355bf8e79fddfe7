"""Config: types, overrides, the exact message for each mistake, the command line."""

from pathlib import Path

import pytest

from model import check_network
from tests.conftest import ROOT, RunTool
from util.config import check_test, check_train, config_parser, dump_config, load_config
from util.config.keys import FIELDS, full_name
from util.error import ConfigError

MINIMAL = """
DATA:
  data_root: dataset/x
  train_list: list/train.txt
  classes: 3
TRAIN:
  base_lr: 1e-4
  weight:
  resume:
  manual_seed:
  mask_h:
  save_path: exp/x/model
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL)
    return path


def test_values_are_typed(minimal: Path) -> None:
    cfg = load_config(minimal)
    assert cfg.base_lr == 1e-4  # YAML 1.1 reads it as text
    assert cfg.weight == "" and cfg.resume == ""
    assert cfg.manual_seed is None and cfg.mask_h is None
    assert cfg.data_root == str(ROOT / "dataset/x")
    assert cfg.init_weight == str(ROOT / "initmodel/resnet{layers}_v2.pth")


def test_overrides_of_empty_keys_and_odd_numbers(minimal: Path) -> None:
    words = (
        "TRAIN.weight w.pth resume auto manual_seed 7 TRAIN.mask_h 59 base_lr 1 weight_decay 5e-5"
    )
    cfg = load_config(minimal, words.split())
    assert cfg.weight == str(Path.cwd() / "w.pth")  # relative to the current folder
    assert cfg.resume == "auto"
    assert (cfg.manual_seed, cfg.mask_h, cfg.base_lr, cfg.weight_decay) == (7, 59, 1.0, 5e-5)
    assert load_config(minimal, ["mask_h", "7", "mask_h", "None"]).mask_h is None
    assert load_config(minimal, ["TEST.scales", "[1]", "train_gpu", "[0, 1]"]).scales == [1.0]
    assert load_config(minimal, ["TRAIN.init_weight", ""]).init_weight == ""
    assert load_config(minimal, ["rotate_min", "-3"]).rotate_min == -3.0
    assert load_config(minimal, ["amp", "off"]).amp == "off"


MISTAKES = [
    (["base_lrr", "1"], "unknown key 'base_lrr' in the command line; nearest: TRAIN.base_lr"),
    (
        ["TRAIN.Epochs", "1"],
        "unknown key 'TRAIN.Epochs' in the command line; nearest: TRAIN.epochs",
    ),
    (["zzz", "1"], "unknown key 'zzz' in the command line; config/README.md lists all keys"),
    (
        ["TEST.base_lr", "1"],
        "wrong section 'TEST.base_lr' in the command line; the key is TRAIN.base_lr",
    ),
    (
        ["TRAIN.base_lr=0.1"],
        "overrides come in pairs `SECTION.key value`, but 'TRAIN.base_lr=0.1' has no value: write "
        "`TRAIN.base_lr 0.1`",
    ),
    (["TRIAN.epochs", "1"], "override 'TRIAN.epochs': unknown section 'TRIAN'; nearest: TRAIN"),
    (["epochs", "1.5"], "TRAIN.epochs must be a whole number, got '1.5' in the command line"),
    (["epochs", "many"], "TRAIN.epochs must be a whole number, got 'many' in the command line"),
    (["epochs", ""], "TRAIN.epochs must be a whole number, got '' in the command line"),
    (["epochs", "0"], "TRAIN.epochs must be at least 1, got 0"),
    (["base_lr", "0"], "TRAIN.base_lr must be above 0, got 0.0"),
    (["base_lr", "nan"], "TRAIN.base_lr must be a number, got 'nan' in the command line"),
    (["sync_bn", "maybe"], "TRAIN.sync_bn must be True or False, got 'maybe' in the command line"),
    (
        ["scales", "[1.0"],
        "TEST.scales must be a list of numbers such as [0.5, 1.0], got '[1.0' in the command line: "
        "not valid YAML (expected ',' or ']', but got '<stream end>')",
    ),
    (["loss", "ohm"], "TRAIN.loss must be one of ce, ohem, got ohm; nearest: ohem"),
    (["zoom_factor", "3"], "TRAIN.zoom_factor must be one of 1, 2, 4, 8, got 3"),
    (["mask_h", "x"], "TRAIN.mask_h must be a whole number or empty, got 'x' in the command line"),
    (["epochs"], "overrides come in pairs `SECTION.key value`, but 'epochs' has no value"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES)
def test_mistakes_on_the_command_line(minimal: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(minimal, words)
    assert str(error.value) == sentence


FILE_MISTAKES = [
    ("TRAIN:\n  base_lrr: 1\n", "unknown key 'TRAIN.base_lrr' in {path}; nearest: TRAIN.base_lr"),
    ("TEST:\n  epochs: 1\n", "wrong section 'TEST.epochs' in {path}; the key is TRAIN.epochs"),
    ("TRIAN:\n  epochs: 1\n", "{path}: unknown section 'TRIAN'; nearest: TRAIN"),
    (
        "DATA:\n  classes: 3\n",
        "DATA.data_root is missing in {path}: add it or pass it as an override",
    ),
    ("DATA: [1]\n", "{path}: section DATA must hold `key: value` lines"),
    ("just text", "{path} must hold sections of `key: value` lines"),
    (
        "DATA:\n  classes: 3\n  classes: 4\n",
        "{path} at line 3, column 3: 'classes' is given twice, remove one",
    ),
    (
        "DATA:\n\tclasses: 3\n",
        "{path} at line 2, column 1: not valid YAML (found character '\\t' that cannot start any "
        "token)",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), FILE_MISTAKES)
def test_mistakes_in_the_file(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value) == sentence.format(path=path)


CHECKS = [
    (["arch", "pspp"], "TRAIN.arch must be one of psp, psa, icnet, got pspp; nearest: psp"),
    (["layers", "51"], "TRAIN.layers must be one of 18, 34, 50, 101, 152, got 51"),
    (["train_h", "512"], "TRAIN.train_h must be 8*k+1, got 512; nearest: 505, 513"),
    (["train_w", "1"], "TRAIN.train_w must be 8*k+1, got 1; nearest: 9"),
    (["scale_min", "3"], "TRAIN.scale_min 3.0 is above TRAIN.scale_max 2.0: swap them"),
    (
        ["class_weights", "[0, 0, 0]"],
        "TRAIN.class_weights are all 0: give at least one class a weight",
    ),
    (
        ["data_root", ""],
        "DATA.data_root must not be empty: write a path, or . for the project's folder",
    ),
    (["train_list", ""], "DATA.train_list is empty: set it in the config or as an override"),
    (["evaluate", "True"], "DATA.val_list is empty: set it in the config or as an override"),
    (
        ["ignore_label", "2"],
        "TRAIN.ignore_label 2 is also a class id (DATA.classes 3): choose a number of at least 3, "
        "usually 255 or 65535",
    ),
]


@pytest.mark.parametrize(("words", "sentence"), CHECKS)
def test_combinations_that_cannot_train(minimal: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        cfg = load_config(minimal, words)
        check_train(cfg)
        check_network(cfg)
    assert str(error.value) == sentence


def test_psanet_is_tested_at_its_training_crop(minimal: Path) -> None:
    cfg = load_config(minimal, ["arch", "psa", "train_h", "465", "train_w", "465"])
    with pytest.raises(ConfigError, match="473x473, must be 465x465"):
        check_network(cfg, is_test=True)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["arch", "psa"], r"TEST\.test_mode whole cannot be used with PSANet"),
        (["test_compile", "True"], r"TEST\.test_compile True needs windows of one size"),
    ],
)
def test_whole_images_need_a_network_for_any_size(
    minimal: Path, words: list[str], part: str
) -> None:
    check_test(load_config(minimal, ["test_mode", "whole", "batch_windows", "3"]))
    cfg = load_config(minimal, ["test_mode", "whole", *words])
    with pytest.raises(ConfigError, match=part):
        check_test(cfg)
        check_network(cfg, is_test=True)


def test_scaled_images_have_a_size_limit(minimal: Path) -> None:
    with pytest.raises(ConfigError, match="sides above 65536 pixels"):
        check_test(load_config(minimal, ["scales", "[1, 100]", "base_size", "2048"]))


def test_missing_file_names_the_nearest_recipe() -> None:
    with pytest.raises(ConfigError, match=r"no config file zzz\.yaml; the recipes are in config/"):
        load_config("zzz.yaml")
    with pytest.raises(ConfigError, match=r"nearest: config/ade20k/ade20k_pspnet50\.yaml"):
        load_config("config/ade20k/ade20k_pspnet51.yaml")


def test_dump_is_read_back_to_the_same_config(minimal: Path, tmp_path: Path) -> None:
    cfg = load_config(minimal, ["TEST.scales", "[0.5, 1]", "mask_w", "9", "weight", "/a b/w.pth"])
    (tmp_path / "d.yaml").write_text(dump_config(cfg))
    assert load_config(tmp_path / "d.yaml") == cfg


def test_config_is_read_only(minimal: Path) -> None:
    with pytest.raises(AttributeError):
        load_config(minimal).epochs = 3


def test_weight_path_of_old_files(minimal: Path) -> None:
    assert load_config(minimal).init_weight == str(ROOT / "initmodel/resnet{layers}_v2.pth")


def test_the_page_of_all_keys_is_current(run_tool: RunTool) -> None:
    code, page, err = run_tool("train", "--keys=markdown")
    assert code == 0, err
    assert page == (ROOT / "config/README.md").read_text(), (
        "run: python tool/train.py --keys=markdown > config/README.md"
    )
    code, text, _ = run_tool("train", "--keys")
    assert code == 0
    for name, f in FIELDS.items():
        assert f"{full_name(name)}: " in text and f.metadata["help"]


def test_options_and_overrides_mix(minimal: Path) -> None:
    parser = config_parser("A tool.")
    parser.add_argument("--image", required=True)
    parser.add_argument("--fast", action="store_true")
    words = [
        "epochs",
        "3",
        "--image",
        "-5,3",
        "rotate_min",
        "-1e-3",
        "--fast",
        f"--config={minimal}",
    ]
    args = parser.parse_args(words)
    assert (args.image, args.fast, args.config) == ("-5,3", True, str(minimal))
    cfg = load_config(args.config, args.overrides)
    assert (cfg.epochs, cfg.rotate_min) == (3, -1e-3)
    with pytest.raises(SystemExit):
        parser.parse_args([*words, "--imag", "x"])
