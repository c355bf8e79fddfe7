"""Names in state dicts of other trainers: prefixes are removed where there is no doubt."""

import re
from collections.abc import Mapping

from torch import Tensor

from util.error import CheckpointError

_WRAPPERS = re.compile(r"^((module|_orig_mod|model|network|net)\.)+|(?<=\.)_orig_mod\.")
_AVERAGED = r"(ema|ema_model|model_ema)(\.module|\._orig_mod|\.model)*\."
_PARTS = (
    r"(student|teacher|encoder|encoder_q|encoder_k|momentum_encoder|online_model|backbone)"
    r"(\.module|\._orig_mod|\.model)*\."
)
# Entries of every network, by which a prefix is recognised: the classifier's, else the trunk's.
_ANCHORS = ("cls.4.weight", "layer1.0.conv1.weight")


def plain_names(state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Remove prefixes that other trainers add to all names, such as `module.` and `student.`.

    Averaged (EMA) weights are dropped if there are others. Raises CheckpointError if several
    networks are left, or other entries beside one with a prefix.
    """
    names = [_WRAPPERS.sub("", name) for name in state]
    if len(set(names)) < len(names):
        raise CheckpointError(
            f"{source} holds tensors whose names differ only in their prefix, such as "
            f"{next(n for n in names if names.count(n) > 1)}: keep one of each"
        )
    plain = dict(zip(names, state.values(), strict=True))
    averaged, prefixes = (_prefixes(plain, kind) for kind in (_AVERAGED, _PARTS))
    if prefixes or _prefixes(plain, ""):
        plain = {n: v for n, v in plain.items() if not n.startswith(tuple(averaged))}
    else:
        prefixes = averaged
    return plain if _prefixes(plain, "") or not prefixes else _unwrapped(plain, prefixes, source)


def _unwrapped(state: Mapping[str, Tensor], prefixes: list[str], source: str) -> dict[str, Tensor]:
    if len(prefixes) > 1:
        raise CheckpointError(
            f"{source} holds several networks, whose names begin with {' and '.join(prefixes)}: "
            "save the tensors of one of them alone, without the prefix"
        )
    (prefix,) = prefixes
    others = [n for n, value in state.items() if not n.startswith(prefix) and value.dim()]
    if others:
        raise CheckpointError(
            f"{source} holds a network whose names begin with {prefix} and {len(others)} other "
            f"tensors ({', '.join(others[:3])}): save those that begin with {prefix} alone"
        )
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}


def _prefixes(state: Mapping[str, Tensor], kind: str) -> list[str]:
    """Return the prefixes of this kind of networks in the state dict."""
    for anchor in _ANCHORS:
        starts = {n.removesuffix(anchor) for n in state if n == anchor or n.endswith(f".{anchor}")}
        if starts:
            return sorted(start for start in starts if re.fullmatch(kind, start))
    return []
