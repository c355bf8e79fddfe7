"""The networks: build.py has them by name, each has a file of its own."""

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
