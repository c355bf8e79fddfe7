"""The networks, one file each; build.py builds them by name."""

from model.build import (
    ARCHS,
    backbone_name,
    build_model,
    check_network,
    load_predictor,
    load_pretrained,
    load_trained,
    start_network,
)
from model.segmentor import Segmentor, SegOutput

__all__ = [
    "ARCHS",
    "SegOutput",
    "Segmentor",
    "backbone_name",
    "build_model",
    "check_network",
    "load_predictor",
    "load_pretrained",
    "load_trained",
    "start_network",
]
