"""The shipped recipes, and old config files with exactly the published keys."""

from pathlib import Path

import pytest
import torch
import yaml

from model import ARCHS, build_model, check_network
from tests.conftest import ROOT, RunTool
from util.config import check_test, check_train, load_config
from util.palette import load_colors, load_names

RECIPES = sorted(ROOT.glob("config/*/*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_loads_and_builds(path: Path) -> None:
    cfg = load_config(path)
    check_train(cfg)
    check_test(cfg)
    check_network(cfg)
    check_network(cfg, is_test=True)
    with torch.device("meta"):
        build_model(cfg)
    assert len(load_names(cfg.names_path, cfg.classes)) == cfg.classes
    assert load_colors(cfg.colors_path, cfg.classes).shape == (cfg.classes, 3)
    assert path.read_text().startswith(f"# {ARCHS[cfg.arch].__name__}{cfg.layers}")
    assert "# reproduced:" in path.read_text()


PUBLISHED = {
    ("ade20k", "psp"): (150, 473, 100, 512),
    ("ade20k", "psa"): (150, 465, 100, 512),
    ("voc2012", "psp"): (21, 473, 50, 512),
    ("voc2012", "psa"): (21, 465, 50, 512),
    ("cityscapes", "psp"): (19, 713, 200, 2048),
    ("cityscapes", "psa"): (19, 705, 200, 2048),
}


@pytest.mark.parametrize("layers", [50, 101])
@pytest.mark.parametrize(("dataset", "arch"), PUBLISHED)
def test_recipes_of_the_results_tables(dataset: str, arch: str, layers: int) -> None:
    cfg = load_config(ROOT / f"config/{dataset}/{dataset}_{arch}net{layers}.yaml")
    assert (cfg.arch, cfg.layers, cfg.batch_size, cfg.base_lr) == (arch, layers, 16, 0.01)
    shape = (cfg.classes, cfg.train_h, cfg.epochs, cfg.base_size)
    assert shape == PUBLISHED[dataset, arch]
    assert cfg.train_h == cfg.train_w == cfg.test_h == cfg.test_w
    assert cfg.init_weight.endswith(f"initmodel/resnet{layers}_v2.pth")


PUBLISHED_KEYS = {  # exactly the keys of the published config files
    "DATA": "data_root train_list val_list classes",
    "TRAIN": "arch layers sync_bn train_h train_w scale_min scale_max rotate_min rotate_max "
    "zoom_factor ignore_label aux_weight train_gpu workers batch_size batch_size_val base_lr "
    "epochs start_epoch power momentum weight_decay manual_seed print_freq save_freq save_path "
    "weight resume evaluate psa_type compact shrink_factor mask_h mask_w normalization_factor "
    "psa_softmax",
    "Distributed": "dist_url dist_backend multiprocessing_distributed world_size rank",
    "TEST": "test_list split base_size test_h test_w scales has_prediction index_start index_step "
    "test_gpu model_path save_folder colors_path names_path",
}


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["psp", "psa"])
def test_an_old_file_with_exactly_the_published_keys_runs(
    tiny: Path, tmp_path: Path, run_tool: RunTool, arch: str
) -> None:
    recipe = yaml.safe_load((ROOT / "config/ade20k/ade20k_psanet50.yaml").read_text())
    usual = yaml.safe_load(tiny.read_text())
    old = {
        section: {
            name: {**recipe, **usual}[section].get(name, recipe[section][name])
            for name in names.split()
        }
        for section, names in PUBLISHED_KEYS.items()
    }
    old["TRAIN"].update(arch=arch, mask_h=None, mask_w=None, base_lr="1e-2")
    old["TRAIN"].update(scale_min=0.5, scale_max=2, weight=None, resume=None)
    old["TEST"].update(test_list=old["DATA"]["val_list"], test_w=33, colors_path="", names_path="")
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old))
    # The initial weights, a fixed path in the original, are now set by a key.
    for tool, words in (("train", ["init_weight", ""]), ("test", [])):
        code, _, err = run_tool(tool, "--config", tmp_path / "old.yaml", *words)
        assert code == 0, err
    assert (tmp_path / "run/result/epoch_1/val/ss/gray/p0.png").is_file()
