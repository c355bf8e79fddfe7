"""The keys of section TRAIN."""

from dataclasses import dataclass

from util.config.key import key


@dataclass(frozen=True, kw_only=True)
class Train:
    """Network, data augmentation, loss, schedule and checkpoints."""

    arch: str = key("psp", network=True, help="network: `psp` (PSPNet), `psa` (PSANet) or `icnet`")
    layers: int = key(
        50, span=(1, 10000), network=True, help="depth of the ResNet: 18, 34, 50, 101 or 152"
    )
    backbone: str = key(
        "",
        network=True,
        help="`resnet<layers>`, `torchvision/<name>` or `timm/<name>` (model/README.md lists those "
        "tested); empty: ResNet with `layers`",
    )
    deep_base: bool | None = key(
        None,
        help="ResNet stem: three 3x3 convolutions (True) or one 7x7 convolution (False); empty: "
        "the stem of the weight file, if any, else three",
    )
    init_weight: str = key(
        "initmodel/resnet{layers}_v2.pth",
        is_path=True,
        words=("pretrained",),
        help="initial weights of the backbone: a file (`.pth` or `.safetensors`; `{layers}` is "
        "replaced), `pretrained` (download from torchvision or timm) or empty (random)",
    )
    sync_bn: bool = key(True, help="compute BatchNorm statistics over all processes")
    train_h: int = key(
        473, span=(1, 8193), help="crop height; 8k+1 for PSPNet and PSANet, 32k+1 for ICNet"
    )
    train_w: int = key(473, span=(1, 8193), help="crop width")
    scale_min: float = key(0.5, span=(0.01, 10), help="smallest random scale")
    scale_max: float = key(2.0, span=(0.01, 10), help="largest random scale")
    rotate_min: float = key(-10.0, span=(-180, 180), help="smallest random rotation in degrees")
    rotate_max: float = key(10.0, span=(-180, 180), help="largest random rotation in degrees")
    augment: str = key(
        "fused",
        choices=("fused", "stepwise"),
        help="`fused`: the same scales, angles and crops in one warp per crop, many times faster; "
        "rotated images are interpolated once instead of twice, so they stay sharper; `stepwise`: "
        "the original sequence of steps on the whole image",
    )
    cache_folder: str = key(
        "",
        is_path=True,
        help="folder on a fast local disk for caching decoded training images, shared by all "
        "loader processes; filled in the first epoch; empty: no cache",
    )
    cache_gib: float = key(
        50.0,
        above=(0, 1e6),
        help="maximum size of cache_folder in GiB; images that do not fit are decoded each time",
    )
    zoom_factor: int = key(
        8,
        choices=(1, 2, 4, 8),
        network=True,
        help="upsampling of the logits: their sides are (crop - 1) / 8 * zoom_factor + 1",
    )
    ignore_label: int = key(
        255, span=(0, 65535), help="label id that is excluded from loss and scores"
    )
    aux_weight: float = key(0.4, span=(0, 1000), help="weight of the auxiliary loss")
    loss: str = key(
        "ce",
        choices=("ce", "ohem"),
        help="`ce`: cross entropy; `ohem`: cross entropy over hard pixels only",
    )
    ohem_threshold: float = key(
        0.7, above=(0, 1), help="a pixel is hard if its true class has a lower probability"
    )
    ohem_min_kept: int = key(
        100000,
        span=(1, 2**31 - 1),
        help="minimum number of hard pixels per batch, over all processes",
    )
    class_weights: list[float] | str = key(
        "",
        span=(0, 1e6),
        is_path=True,
        words=("median",),
        help="class weights in the loss: one number per class, `median` (median frequency) or a "
        "file written by `tool/check_data.py --json`",
    )
    psa_type: int = key(
        2, choices=(0, 1, 2), network=True, help="PSANet: 0 collect, 1 distribute, 2 both"
    )
    compact: bool = key(
        False,
        network=True,
        help="PSANet: attention channels are absolute positions instead of a relative mask",
    )
    shrink_factor: int = key(
        2,
        span=(1, 64),
        network=True,
        help="PSANet: downsampling factor of the features before attention",
    )
    mask_h: int | None = key(
        None,
        span=(1, 4097),
        network=True,
        help="PSANet: height of the attention mask; empty: the largest that fits",
    )
    mask_w: int | None = key(
        None,
        span=(1, 4097),
        network=True,
        help="PSANet: width of the attention mask; empty: the largest that fits",
    )
    normalization_factor: float | None = key(
        1.0,
        span=(1e-6, 1e9),
        network=True,
        help="PSANet: divisor of the attended features; empty: mask_h * mask_w",
    )
    psa_softmax: bool = key(True, network=True, help="PSANet: softmax over the attended positions")
    classifier: str = key(
        "fused",
        choices=("fused", "stepwise"),
        network=True,
        help="`fused`: PSPNet and PSANet convolve context maps before upsampling them, and logits "
        "are upsampled within the loss (equal up to rounding, much faster); `stepwise`: the order "
        "of the papers",
    )
    train_gpu: list[int] = key(
        [0],
        span=(0, 1023),
        help="GPUs to use, one process each, as numbered by CUDA_VISIBLE_DEVICES; missing ones "
        "are skipped",
    )
    workers: int = key(
        2,
        span=(0, 1024),
        help="data loader processes, over all GPUs; 0: load in the training process",
    )
    batch_size: int = key(16, span=(1, 65536), help="images per step, over all GPUs")
    batch_size_val: int = key(8, span=(1, 65536), help="images per validation step, over all GPUs")
    base_lr: float = key(
        0.01,
        above=(0, 1000),
        help="initial learning rate of the backbone; the new layers use 10 times as much",
    )
    epochs: int = key(100, span=(1, 1000000), help="total number of epochs")
    start_epoch: int = key(0, span=(0, 1000000), help="first epoch, unless the run resumes")
    power: float = key(0.9, span=(0, 100), help="exponent of the poly learning rate schedule")
    warmup_steps: int = key(0, span=(0, 2**31 - 1), help="steps of linear learning rate warm-up")
    optimizer: str = key("sgd", choices=("sgd", "adamw"), help="optimizer")
    momentum: float = key(0.9, span=(0, 1), help="momentum of SGD")
    weight_decay: float = key(
        0.0001, span=(0, 1000), help="weight decay of all parameters (AdamW: decoupled)"
    )
    manual_seed: int | None = key(
        None,
        span=(0, 2**63 - 1),
        help="random seed; empty: a random one, recorded in the run's config.yaml",
    )
    print_freq: int = key(
        10, span=(1, 2**31 - 1), help="steps between log lines (when testing: images)"
    )
    save_freq: int = key(1, span=(1, 1000000), help="epochs between checkpoints")
    save_every_steps: int = key(
        0, span=(0, 2**31 - 1), help="steps between checkpoints within an epoch; 0: off"
    )
    save_every_minutes: float = key(0.0, span=(0, 1e6), help="minutes between checkpoints; 0: off")
    save_path: str = key(
        "", is_path=True, help="folder for checkpoints, log and TensorBoard events"
    )
    weight: str = key("", is_path=True, help="trained network to start from (fine-tuning)")
    resume: str = key(
        "",
        is_path=True,
        words=("auto",),
        help="checkpoint to resume from; `auto`: the newest in save_path, if any",
    )
    evaluate: bool = key(
        False, help="validate after every epoch and keep the best checkpoint as best.pth"
    )
    amp: str = key(
        "off",
        choices=("off", "tf32", "bf16", "fp16"),
        help="precision of convolutions and matrix products: `off` is float32, `tf32` rounds their "
        "inputs to 10 bits on GPUs that support it; float32 is used if the device does not support "
        "the setting",
    )
    channels_last: bool = key(
        False, help="channels_last memory layout, faster with amp and on CPUs"
    )
    accumulate_steps: int = key(
        1,
        span=(1, 65536),
        help="number of micro-batches per batch whose gradients are accumulated: less memory, same "
        "result except for BatchNorm (see freeze_bn)",
    )
    activation_checkpointing: bool = key(
        False, help="recompute activations in the backward pass: less memory, slower, same result"
    )
    compile: bool = key(False, help="compile the network with torch.compile; needs a C++ compiler")
    freeze_bn: bool = key(
        False, help="keep the BatchNorm statistics of the weight file fixed, for small batches"
    )
    nonfinite: str = key(
        "stop",
        choices=("stop", "skip"),
        help="if a loss or gradient is NaN or infinite: `stop` the run or `skip` the step; the "
        "weights stay finite either way",
    )
    profile: int = key(
        0,
        span=(0, 1000),
        help="number of steps to profile near the start: writes a Chrome trace to save_path and "
        "logs the most expensive operators; 0: off",
    )
    val_protocol: str = key(
        "crop",
        choices=("crop", "test"),
        help="what `evaluate` scores: centre crops (quick) or whole images as in tool/test.py",
    )
