"""The poly learning-rate schedule (Chen et al., DeepLab, 2016; used by PSPNet, section 5.1)."""


def poly_lr(
    base_lr: float, step: int, total_steps: int, power: float = 0.9, warmup_steps: int = 0
) -> float:
    """Learning rate of step `step` (0 = first): base_lr * (1 - step / total_steps) ** power.

    During the first `warmup_steps` steps it is scaled by (step + 1) / warmup_steps. It is 0 from
    total_steps on.
    """
    rate = base_lr * max(0.0, 1.0 - step / total_steps) ** power
    return rate if step >= warmup_steps else rate * (step + 1) / warmup_steps
