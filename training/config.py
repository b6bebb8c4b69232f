"""Everything that defines a training run, as frozen data. Each setting is declared here once, with its flag and help.

Times and half-lives are in kimg: thousands of real images shown to the discriminator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from stylegan.networks.config import NetworkConfig
from torch_utils.errors import UserError
from torch_utils.settings import Flag, setting
from training.schedule import GrowthSchedule, PerResolution

ESSENTIALS, GROWTH, LEARNING, MACHINE = "Essentials", "Growing", "Loss and learning", "Machine and saving"
AUTO = "auto"  # --resume: whichever run it is
_table = partial(PerResolution.parse, kind=float)
_whole_table = partial(PerResolution.parse, kind=int)
_TABLE = "N|RES:N,...,N"
ONE_IMAGE = 0.001  # kimg


def _auto_or_whole(text: str) -> int | None:
    """ "auto" is None, which leaves it to the machine. Raises UserError for anything else but a whole number."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise UserError(f"'{text}' is no whole number; give one, or auto") from None


Augmentation = Literal["color", "translation", "cutout"]
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)


def parse_augmentations(text: str) -> tuple[Augmentation, ...]:
    """ "color,cutout" -> ("color", "cutout"), in a fixed order; "none" -> (). Raises UserError for others."""
    if text == "none":
        return ()
    found = [part.strip() for part in text.split(",")]
    for part in found:
        if part not in AUGMENTATIONS:
            raise UserError(f"'{part}' is no augmentation; name some of {','.join(AUGMENTATIONS)}, or none")
    return tuple(kind for kind in AUGMENTATIONS if kind in found)


AID_NETS = {"vgg16": "lpips-vgg16"}  # --vision-aid -> a net of `lpips.NETS`
AID_SMALLEST = 32  # of an image's sides: such a net knows nothing of smaller ones

# The flags of settings that are declared elsewhere, where nothing is known of command lines. Those with a kind belong
# to some families of networks only, see their configs.
FLAGS: Mapping[str, Flag] = {
    "growth.batch": Flag("--batch", "Images per step over all GPUs, one number or one per resolution.",
                         ESSENTIALS, parse=_whole_table, metavar=_TABLE, positive=True, most=1 << 20),
    "model.resolution": Flag("--resolution", "Grow up to this resolution; larger data are reduced to it.", GROWTH),
    "growth.initial": Flag("--init-res", "Resolution to start from.", GROWTH),
    "growth.stable_kimg": Flag("--lod-kimg", "How long each resolution is held before the next fades in.", GROWTH,
                               parse=_table, metavar=_TABLE, least=ONE_IMAGE),
    "growth.fade_kimg": Flag("--fade-kimg", "How long each new resolution takes to fade in.", GROWTH,
                             parse=_table, metavar=_TABLE, least=ONE_IMAGE),
    "growth.lr": Flag("--lr", "Learning rate of both networks.", LEARNING, parse=_table, metavar=_TABLE, positive=True),
    "growth.anneal_from": Flag("--anneal-from", "The kimg from which the learning rate falls, but not before the final"
                               " resolution has faded in.", LEARNING, resume="ahead"),
    "growth.anneal_kimg": Flag("--anneal-kimg", "How long the learning rate takes to fall to --lr-end of itself; 0: it"
                               " does not fall.", LEARNING, least=ONE_IMAGE, resume="ahead"),
    "growth.lr_end": Flag("--lr-end", "Share of the learning rate that --anneal-kimg leaves.", LEARNING,
                          resume="ahead"),
    "model.style_mixing": Flag("--style-mixing-prob", "Share of images made from two styles.", LEARNING, kind=float),
    "model.fmap_base": Flag("--fmap-base", "Feature maps at resolution R: FMAP_BASE/R, at most FMAP_MAX.", kind=int,
                            positive=True),
    "model.fmap_max": Flag("--fmap-max", "Most feature maps at any resolution.", kind=int, positive=True),
    "model.d_fmap_max": Flag("--d-fmap-max", "Most feature maps of the discriminator, if it has fewer than the"
                             " generator.", typed="FMAP_MAX", kind=int, positive=True),
    "model.z_dim": Flag("--z-dim", "Length of the random input z.", positive=True),
    "model.w_dim": Flag("--w-dim", "Length of the style vector w.", kind=int, positive=True),
    "model.mapping_layers": Flag("--map-depth", "Layers of the mapping network from z to w.", kind=int),
    "model.mapping_dim": Flag("--map-dim", "Width of the mapping network.", kind=int, positive=True),
    "model.styles": Flag("--styles", "Feed the image through styles; off: a traditional generator.", kind=bool),
    "model.const_input": Flag("--const-input", "Start from a learned constant; off: from w.", kind=bool),
    "model.noise": Flag("--noise", "Add noise to every layer.", kind=bool),
    "model.pixel_norm": Flag("--pixel-norm", "Normalise every pixel's features.", kind=bool),
    "model.instance_norm": Flag("--instance-norm", "Normalise every feature map.", kind=bool),
    "model.mbstd_group": Flag("--mbstd-group", "Group size for the minibatch standard deviation.", kind=int,
                              positive=True),
}  # fmt: skip


@dataclass(frozen=True)
class LossConfig:
    """Which game the two networks play. Penalties are weights on squared gradients or scores."""

    name: Literal["logistic", "wgan-gp", "relativistic", "hinge"] = setting(
        "logistic", Flag("--loss", "Loss function.", LEARNING)
    )
    r1_gamma: PerResolution[float] = setting(
        PerResolution(10.0),
        Flag("--gamma", "Strength of R1, which keeps the discriminator smooth around real images. Too high and images"
             " stay blurred, too low and training becomes unstable; try a half and a double.", ESSENTIALS,
             parse=_table, metavar=_TABLE),
    )  # fmt: skip
    r1_interval: int = setting(
        1, Flag("--r1-interval", "Apply R1 at every N-th step only, N times as strongly: faster.", LEARNING,
                positive=True),
    )  # fmt: skip
    r2_gamma: PerResolution[float] = setting(
        PerResolution(0.0), Flag("--r2-gamma", "Strength of the same penalty around generated images.", LEARNING,
                                 parse=_table, metavar=_TABLE),
    )  # fmt: skip
    diffaugment: tuple[Augmentation, ...] = setting(
        (), Flag("--diffaugment", "For few images: change what the discriminator sees of them, real and made, so that"
                 " it does not memorise them. color,translation,cutout, some of these, or none.", LEARNING,
                 parse=parse_augmentations, metavar="KINDS", typed="none"),
    )  # fmt: skip
    vision_aid: Literal["none", "vgg16"] = setting(
        "none", Flag("--vision-aid", "A second discriminator, which looks at images from 32x32 on with the eyes of a"
                     " network that knows photographs (fetched once, 64 MB): better faces sooner, for about twice the"
                     " work.", LEARNING),
    )  # fmt: skip
    share_fakes: bool = setting(
        False, Flag("--share-fakes", "Both networks learn from the same fakes in each step, made and looked at once:"
                    " faster, most of all with --vision-aid, but it takes more memory.", LEARNING),
    )  # fmt: skip
    aid_zoom: int = setting(
        1, Flag("--aid-zoom", "How many times as large as they are the vision aid sees images.", typed="2",
                positive=True, most=16),
    )  # fmt: skip
    aid_weight: float = setting(1.0, Flag("--aid-weight", "Weight of what the vision aid says."))
    aid_gamma: float = setting(0.05, Flag("--aid-gamma", "Strength of R1 and R2 at the features of the vision aid."))
    wgan_lambda: float = setting(10.0, Flag("--wgan-lambda", "Weight of the gradient penalty (wgan-gp)."))
    wgan_target: float = setting(1.0, Flag("--wgan-target", "Gradient norm that the penalty aims at (wgan-gp)."))
    wgan_drift: float = setting(0.001, Flag("--wgan-drift", "Weight that holds real scores near 0 (wgan-gp)."))
    acgan_weight: float = setting(1.0, Flag("--acgan-weight", "Weight of the class loss (wgan-gp with --cond)."))


@dataclass(frozen=True)
class OptimConfig:
    """Adam, for both networks; its learning rate is part of the growth schedule."""

    g_share: float = setting(
        1.0, Flag("--g-lr-share", "The generator learns at this share of --lr: below 1, the discriminator keeps ahead.",
                  LEARNING, positive=True)
    )  # fmt: skip
    beta1: float = setting(0.0, Flag("--beta1", "Adam: decay of the mean gradient per step."))
    beta2: float = setting(0.99, Flag("--beta2", "Adam: decay of the squared gradient per step."))
    eps: float = setting(1e-8, Flag("--adam-eps", "Adam: smallest denominator.", positive=True))


@dataclass(frozen=True)
class DataConfig:
    """The real images. `content_hash` says which ones `path` held when the run began.

    class_names: of the classes that are learnt     empty_classes: those among them of which no image is shown
    """

    path: str = setting(
        "", Flag("--data", "Archive made by dataset_tool.py, or a folder of images, or 'mnist' (included).",
                 ESSENTIALS, metavar="ZIP|DIR", resume="free"),
    )  # fmt: skip
    mirror: bool = setting(False, Flag("--mirror", "Show every image mirrored as well.", ESSENTIALS))
    cond: bool = setting(False, Flag("--cond", "Learn the classes of the data, to ask for one later.", ESSENTIALS))
    cache: str = setting(
        "", Flag("--cache", "Folder for the reduced images of --data, in place of the one beside it; not stored with "
                 "the run.", MACHINE, metavar="DIR", resume="free"),
    )  # fmt: skip
    subset: int | None = setting(None, Flag("--subset", "Use only N of the images.", positive=True))
    content_hash: str = ""
    class_names: tuple[str, ...] = ()
    empty_classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class RunConfig:
    """One training run. The defaults are StyleGAN's for FFHQ at 1024x1024 on 8 GPUs (Karras et al. 2019)."""

    data: DataConfig = DataConfig()
    preset: str = setting(
        "", Flag("--cfg", "Preset that fills in every setting you do not type. Default: chosen by the data.",
                 ESSENTIALS, metavar="NAME"),
    )  # fmt: skip
    total_kimg: float = setting(
        25000,
        Flag("--kimg", "How long to train, in thousands of images shown.", ESSENTIALS, positive=True, least=ONE_IMAGE),
    )
    hours: float | None = setting(
        None, Flag("--hours", "How long to train, in hours, in place of --kimg: measures how fast this machine is, then"
                   " plans the growth so that all is done in time, saving, --metrics and the start included.",
                   ESSENTIALS, metavar="HOURS", positive=True, most=1e6),
    )  # fmt: skip
    time_limit: float | None = None  # seconds of training after which a run planned by --hours ends, done or not
    seed: int = setting(0, Flag("--seed", "Random seed: the same seed gives the same run.", ESSENTIALS, most=2**64 - 1))

    model: NetworkConfig = NetworkConfig()
    growth: GrowthSchedule = GrowthSchedule()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()

    ema_kimg: float = setting(
        10.0, Flag("--ema-kimg", "Half-life of the averaged generator, the one that makes the images.", LEARNING,
                   positive=True, least=ONE_IMAGE),
    )  # fmt: skip
    ema_ramp: float | None = setting(
        None,
        Flag("--ema-ramp", "Early on, a half-life of at most this share of the images seen.", LEARNING, positive=True),
    )
    tick_kimg: PerResolution[float] = setting(
        PerResolution(160, {8: 140, 16: 120, 32: 100, 64: 80, 128: 60, 256: 40, 512: 30, 1024: 20}),
        Flag("--tick", "Kimg between status lines. Files are numbered in whole kimg: below 1, those of one kimg replace"
             " each other.", MACHINE, parse=_table, metavar=_TABLE, positive=True, least=ONE_IMAGE),
    )  # fmt: skip
    snap: int = setting(10, Flag("--snap", "Ticks between snapshots.", MACHINE, positive=True, resume="free"))
    snap_d: bool = setting(
        True, Flag("--snap-d", "Keep the discriminator in the snapshots too, for --init-from and for scores.", MACHINE,
                   resume="free"),
    )  # fmt: skip
    snap_minutes: float = setting(
        20.0, Flag("--snap-minutes", "Save the state for --resume at least this often.", MACHINE, positive=True,
                   most=1e8, resume="free"),
    )  # fmt: skip
    keep: int | None = setting(
        None, Flag("--keep", "Keep only the newest N snapshots, besides the best. Default: all.", MACHINE,
                   positive=True, resume="free"),
    )  # fmt: skip
    metrics: str = setting(
        "none", Flag("--metrics", "Measure every snapshot, as calc_metrics.py would: kid5k_full,pr5k3_full; or none.",
                     MACHINE, metavar="NAMES", is_list=True, resume="free"),
    )  # fmt: skip
    features: str = setting(
        "efficientnet-lite0", Flag("--features", "What --metrics look at, as in calc_metrics.py. A program must be"
                                   " named again at each --resume.", MACHINE,
                                   metavar="NAME", resume="free"),
    )  # fmt: skip
    val: str = setting(
        "", Flag("--val", "Images that are not trained on, for the metric overfit500.", MACHINE, metavar="ZIP|DIR",
                 resume="free"),
    )  # fmt: skip
    best: str = setting(
        "", Flag("--best", "Which of the metrics chooses best.safetensors. Default: the first that can.", MACHINE,
                 metavar="NAME", resume="free"),
    )  # fmt: skip
    precision: Literal["auto", "bf16", "fp32"] = setting(
        "auto", Flag("--precision", "Number format of the convolutions; auto takes bf16 where it is fast.", MACHINE)
    )
    cuda_graphs: Literal["auto", "off"] = setting(
        "auto", Flag("--cuda-graphs", "Let one GPU repeat recorded steps by itself, or give out every step in parts.",
                     MACHINE, resume="free")
    )  # fmt: skip
    device: str = setting("auto", Flag("--device", "auto, cpu, cuda, cuda:1, ...", ESSENTIALS, resume="free"))
    threads: int | None = setting(
        None, Flag("--threads", "CPU threads. Default: one per core.", MACHINE, positive=True, resume="free")
    )
    gpus: int = setting(
        1, Flag("--gpus", "Number of GPUs, or with --device cpu of processes; also selects the preset's batch sizes.",
                ESSENTIALS, positive=True, most=1 << 16, resume="free")
    )  # fmt: skip
    batch_gpu: int | None = setting(
        None, Flag("--batch-gpu", "Most images per GPU at once; a larger batch is worked off in parts. auto: as many as"
                   " fit; on a CPU, all.", MACHINE, parse=_auto_or_whole, metavar="N|auto", typed="auto",
                   positive=True, resume="free")
    )  # fmt: skip
    reduce: Literal["fp32", "bf16"] = setting(
        "fp32", Flag("--reduce", "Number format in which gradients travel between GPUs.", MACHINE)
    )
    max_restarts: int = setting(
        3, Flag("--max-restarts", "How often a run on several GPUs may go on from its last state by itself after one of"
                " its processes was lost.", MACHINE, resume="free")
    )  # fmt: skip
    timeout: float = setting(
        600.0, Flag("--timeout", "Seconds after which a process that is stuck, or does not answer the others, is given "
                    "up.", MACHINE, positive=True, least=1, most=1e8, resume="free"),
    )  # fmt: skip
    max_bad_steps: int = setting(
        20, Flag("--max-bad-steps", "Steps in a row with infinite gradients before going back to the last good state.",
                 positive=True),
    )  # fmt: skip
    desc: str = setting("", Flag("--desc", "Text to add to the name of the run directory.", MACHINE))
