"""OpenCLIP's vision transformers (Ilharco et al. 2021; Cherti et al. 2022, arXiv:2212.07143) at any size.

open_clip itself adds its table of positions as it is and takes only its own square size. Here the same modules and the
same weights run on any grid of patches. The features are those of open_clip's `output_tokens`: every patch after
`ln_post`, without the class token. The projection into the image-text space is never made.

    conv1 -> [class | patches] + positions -> ln_pre -> blocks 1..layer -> ln_post -> drop class

The state dict has the names of open_clip's `visual`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from vlmkit.encoders import encoders
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD, Positions, ViT
from vlmkit.hub import refuse_unreachable
from vlmkit.registry import suggestion
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from torch import nn

HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names that the weights have in a repository of open_clip's."""


@encoders.register("open_clip")
@dataclass(frozen=True, kw_only=True)
class OpenClip(ViT):
    """The defaults are ViT-H-14-378-quickgelu: 631,371,520 parameters without the projection."""

    width: int = 1280
    layers: int = 32
    patch: int = 14
    image_size: int = 378
    heads: int = 16
    mlp_ratio: float = 4.0
    """Hidden channels of a block's MLP over `width`, rounded down."""
    activation: Literal["gelu", "quick_gelu"] = "quick_gelu"
    """OpenAI's and DFN's weights were trained with x * sigmoid(1.702 x): the name without `quickgelu` is the wrong one."""
    pre_norm: bool = True
    """A norm before the first block; CLIPA (arXiv:2305.07017) has none."""
    layer_scale: float | None = None
    """First value of a learned gain on each branch (arXiv:2103.17239); None for no gain."""
    norm_eps: float = 1e-5
    final_norm: bool = True
    class_token: Literal["drop", "keep", "none"] = "drop"
    """Of 'none' there is neither the token nor its position (Qwen-VL)."""
    positions: Positions = "bicubic_antialias"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    checkpoint: str | None = None
    """'<model>/<tag>' as open_clip lists them (ViT-H-14-378-quickgelu/dfn5b), 'hf-hub:<owner>/<name>', or a local file or
    directory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads < 1 or self.width % self.heads:
            raise SpecError(f"open_clip.heads: width {self.width} does not divide into {self.heads} heads")

    @classmethod
    def named(cls, name: str, *, tag: str | None = None, **changes: Any) -> Self:
        """The spec of one of open_clip's own models, and of a checkpoint where `tag` names one.

        `final_norm` follows open_clip: models that norm after pooling (CLIPA) have patch tokens without it. Raises
        SpecError for a name that is unknown or no plain vision transformer.
        """
        from open_clip import get_model_config, list_models

        config = get_model_config(name)
        if config is None:
            raise SpecError(f"unknown open_clip model {name!r};{suggestion(name, list_models())}")
        vision = dict(config["vision_cfg"])
        if "timm_model_name" in vision:
            raise SpecError(f"open_clip model {name!r} is timm's: use the encoder 'timm' with model={vision['timm_model_name']!r}")
        if not isinstance(vision.get("layers", 12), int):
            raise SpecError(f"open_clip model {name!r} is a ResNet, not a vision transformer")
        if vision.get("attentional_pool"):
            raise SpecError(f"open_clip model {name!r} pools by attention and has no norm of its own for patch tokens")
        width = vision.pop("width", 768)
        found: dict[str, Any] = {
            "width": width,
            "layers": vision.pop("layers", 12),
            "heads": width // vision.pop("head_width", 64),
            "patch": vision.pop("patch_size", 16),
            "image_size": vision.pop("image_size", 224),
            "mlp_ratio": vision.pop("mlp_ratio", 4.0),
            "activation": "quick_gelu" if config.get("quick_gelu") else "gelu",
            "pre_norm": not vision.pop("no_ln_pre", False),
            "layer_scale": vision.pop("ls_init_value", None),
            "norm_eps": (vision.pop("norm_kwargs", None) or {}).get("eps", 1e-5),
            "final_norm": not vision.pop("final_ln_after_pool", False),
        }
        for harmless in ("pool_type", "output_tokens", "patch_dropout", "attn_pooler_heads", "attn_pooler_queries"):
            vision.pop(harmless, None)
        if vision:
            raise SpecError(f"open_clip model {name!r} sets {', '.join(sorted(vision))}, which the encoder 'open_clip' does not build")
        if tag is not None:
            found |= _published(name, tag, changes.get("activation", found["activation"]))
        return cls(**(found | changes))

    @property
    def prefix_kept(self) -> int:
        return 1 if self.class_token == "keep" else 0

    def load_pretrained(self, tower: nn.Module) -> None:
        """Fill the tower from `checkpoint`. Downloading a published tag goes through open_clip's own functions and was
        never run here: no network. A local file of the same form was."""
        from open_clip.factory import load_state_dict

        from vlmkit.encoders.loading import fill

        if self.checkpoint is None:
            raise SpecError("open_clip.checkpoint: no checkpoint is named; set it, such as 'ViT-H-14-378-quickgelu/dfn5b'")
        weights = load_state_dict(str(self._file(self.checkpoint)))
        if any(name.startswith("visual.") for name in weights):
            weights = {name.removeprefix("visual."): value for name, value in weights.items() if name.startswith("visual.")}
        fill(tower, {name: value for name, value in weights.items() if self._needs(name)}, self.checkpoint)

    def _needs(self, name: str) -> bool:
        """False for weights of the published model that this tower leaves out."""
        parts = name.split(".")
        if parts[:2] == ["transformer", "resblocks"]:
            return not max(self.depths) <= int(parts[2]) < self.layers
        return name != "proj" and (self.final_norm or parts[0] != "ln_post")

    def _file(self, checkpoint: str) -> Path:
        import open_clip

        local = Path(checkpoint)
        if local.is_file():
            return local
        if local.is_dir():
            files = sorted(file for suffix in ("*.safetensors", "*.bin", "*.pt", "*.pth") for file in local.glob(suffix))
            if len(files) != 1:
                raise SpecError(f"open_clip.checkpoint: expected one weights file in {checkpoint}, found {len(files)}; name the file")
            return files[0]
        if checkpoint.startswith("hf-hub:"):
            refuse_unreachable(repository := checkpoint.removeprefix("hf-hub:"), HUB_FILES)
            return Path(open_clip.pretrained.download_pretrained_from_hf(repository))
        name, _, tag = checkpoint.rpartition("/")
        _published(name, tag, self.activation)
        published = open_clip.get_pretrained_cfg(name, tag)
        if hub := published.get("hf_hub"):
            repository, _, file = hub.rpartition("/")
            refuse_unreachable(repository, (file, f"{file.rpartition('.')[0]}.safetensors") if file else HUB_FILES)
        return Path(open_clip.download_pretrained(published))


def _published(name: str, tag: str, activation: str) -> dict[str, Any]:
    """Fields that a published checkpoint settles. Raises SpecError for an unknown tag or another activation."""
    import open_clip

    known = open_clip.list_pretrained_tags_by_model(name)
    if not open_clip.is_pretrained_cfg(name, tag):
        raise SpecError(f"open_clip has no checkpoint {tag!r} of {name!r};{suggestion(tag, known)} known: {', '.join(known) or 'none'}")
    config = open_clip.get_pretrained_cfg(name, tag)
    # The other direction is no error: open_clip's list leaves the flag out for one checkpoint that was (roberta-ViT-B-32).
    if config.get("quick_gelu") and activation != "quick_gelu":
        raise SpecError(
            f"the checkpoint {name}/{tag} was trained with quick_gelu, but the tower has activation={activation!r}. "
            f"Use {name.removesuffix('-quickgelu')}-quickgelu where open_clip lists it, or activation='quick_gelu'."
        )
    settled = {key: tuple(config[key]) for key in ("mean", "std") if config.get(key) is not None}
    return settled | {"checkpoint": f"{name}/{tag}"}
