"""PSANet: Point-wise Spatial Attention Network (Zhao et al., ECCV 2018)."""

import logging

import torch
from torch import Tensor

from model.backbones import Backbone, traits_of
from model.psa import BOTH, COLLECT, DISTRIBUTE, PSA
from model.resnet import STRIDE_8, ResNet, depth_of
from model.segmentor import Segmentor
from util.config import Config
from util.error import ConfigError

log = logging.getLogger("semseg")


class PSANet(Segmentor):
    """ResNet at stride 8, PSA, classifier: (N, 3, H, W) -> SegOutput.

    Args:
        layers, classes, zoom_factor, dropout, deep_base, fused, trunk: as in
            PSPNet.
        The others: as in PSA. The defaults fit a crop of 465 x 465.
    """

    def __init__(
        self,
        *,
        layers: int = 50,
        classes: int = 2,
        zoom_factor: int = 8,
        psa_type: int = BOTH,
        compact: bool = False,
        shrink_factor: int = 2,
        mask_h: int = 59,
        mask_w: int = 59,
        normalization_factor: float | None = 1.0,
        psa_softmax: bool = True,
        dropout: float = 0.1,
        deep_base: bool = True,
        fused: bool = True,
        trunk: ResNet | Backbone | None = None,
    ) -> None:
        trunk = trunk or ResNet(layers, deep_base=deep_base, stages=STRIDE_8, classes=None)
        super().__init__(trunk, zoom_factor=zoom_factor, fused=fused)
        self.psa = PSA(
            self.trunk_channels[1],
            psa_type=psa_type,
            compact=compact,
            shrink_factor=shrink_factor,
            mask_h=mask_h,
            mask_w=mask_w,
            normalization_factor=normalization_factor,
            psa_softmax=psa_softmax,
        )
        self.add_heads(2 * self.trunk_channels[1], classes, dropout)

    @classmethod
    def from_config(cls, cfg: Config, trunk: ResNet | Backbone) -> "PSANet":
        mask_h, mask_w = mask_size(cfg)
        return cls(
            classes=cfg.classes,
            zoom_factor=cfg.zoom_factor,
            psa_type=cfg.psa_type,
            compact=cfg.compact,
            shrink_factor=cfg.shrink_factor,
            mask_h=mask_h,
            mask_w=mask_w,
            normalization_factor=cfg.normalization_factor,
            psa_softmax=cfg.psa_softmax,
            trunk=trunk,
            fused=cfg.classifier == "fused",
        )

    @classmethod
    def check_config(
        cls, cfg: Config, *, is_test: bool = False, batch_norm_images: int | None = None
    ) -> None:
        super().check_config(cfg, is_test=is_test)
        mask = mask_size(cfg)
        is_filled = mask != (cfg.mask_h or mask[0], cfg.mask_w or mask[1])
        if cfg.compact and is_filled and batch_norm_images is not None:  # once, in training
            log.warning(
                f"TRAIN.compact True: the mask is the map, {mask[0]}x{mask[1]}; mask_h "
                f"{cfg.mask_h} and mask_w {cfg.mask_w} are not used"
            )
        if is_test and cfg.test_mode == "whole":
            raise ConfigError(
                "TEST.test_mode whole cannot be used with PSANet (TRAIN.arch psa), whose attention "
                "has one channel per position of its training crop: set TEST.test_mode slide"
            )
        if is_test and (cfg.test_h, cfg.test_w) != (cfg.train_h, cfg.train_w):
            raise ConfigError(
                f"PSANet works only at its training crop: TEST.test_h x test_w is "
                f"{cfg.test_h}x{cfg.test_w}, must be {cfg.train_h}x{cfg.train_w} (TRAIN.train_h, "
                "train_w), as its attention has one channel per position of that crop"
            )

    def context(self, x: Tensor) -> list[Tensor]:
        return [x, self.psa(x)]

    @torch.inference_mode()
    def attention_of(self, x: Tensor, row: int, column: int) -> dict[str, Tensor]:
        """Return the collect and distribute maps {name: (h', w')} of a pixel of x (1, 3, H, W).

        These are the maps shown in figure 6 of the paper.
        """
        features = self.trunk(x)[1]
        names = {COLLECT: ["collect"], DISTRIBUTE: ["distribute"], BOTH: ["collect", "distribute"]}
        maps = {}
        for name, (shape, weights) in zip(
            names[self.psa.psa_type], self.psa.branches(features), strict=True
        ):
            height, width = shape.shape[-2:]
            y = round(row / (x.shape[2] - 1) * (height - 1))
            q = y * width + round(column / (x.shape[3] - 1) * (width - 1))
            weights = weights[0, :, q] if name == "collect" else weights[0, q, :]
            maps[name] = weights.view(height, width).float()
        return maps


def mask_size(cfg: Config) -> tuple[int, int]:
    """Return height and width of the attention mask, by default the largest.

    With TRAIN.compact it is the map itself. Raises ConfigError if the mask does not fit the
    training crop.
    """
    masks = []
    sides = feature_size(cfg)
    for name, crop, side in zip(
        ("mask_h", "mask_w"), (cfg.train_h, cfg.train_w), sides, strict=True
    ):
        largest = largest_mask(side, cfg.shrink_factor, compact=cfg.compact)
        mask = largest if cfg.compact else getattr(cfg, name) or largest
        if mask > largest:
            raise ConfigError(
                f"TRAIN.{name} must be at most twice the map's side minus 1, {largest} for a crop "
                f"of {crop} and shrink_factor {cfg.shrink_factor}, got {mask}; leave it empty for "
                f"{largest}"
            )
        masks.append(mask)
    return masks[0], masks[1]


def feature_size(cfg: Config) -> tuple[int, int]:
    """Return height and width of the trunk's features for the training crop."""
    if depth_of(cfg) is None:
        return traits_of(cfg.backbone).feature_size(cfg.train_h, cfg.train_w)
    return (cfg.train_h - 1) // 8 + 1, (cfg.train_w - 1) // 8 + 1


def largest_mask(side: int, shrink_factor: int, *, compact: bool) -> int:
    """Return the side of the mask that covers the downsampled map from every position.

    `side` is that of the features before downsampling. If `compact`, the mask is the map itself.
    """
    size = (side - 1) // shrink_factor + 1
    return size if compact else 2 * size - 1
