"""The poly learning-rate schedule (Chen et al., DeepLab, 2016; used by PSPNet, section 5.1)."""


def poly_lr(base_lr: float, step: int, total_steps: int, power: float = 0.9) -> float:
    """Learning rate of step `step` (0 = first): base_lr * (1 - step / total_steps) ** power.

    Past the end it stays 0.
    """
    return base_lr * max(0.0, 1.0 - step / total_steps) ** power
