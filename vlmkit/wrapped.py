"""Whether PEFT stands in a model, so that its weights have other names than a checkpoint's."""

from __future__ import annotations

from torch import nn

from vlmkit.spec import SpecError


def is_wrapper(module: nn.Module) -> bool:
    """Whether PEFT put the module in the place of another one: an adapter's layer, or a copy that learns (modules_to_save)."""
    return hasattr(module, "base_layer") or hasattr(module, "modules_to_save")


def refuse_wrapped(model: nn.Module) -> None:
    """Raise SpecError for a model that cannot be saved as it is. What transformers' own `add_adapter` put in it saves itself."""
    if getattr(model, "_hf_peft_config_loaded", False):
        return
    wrapped = [name for name, module in model.named_modules() if is_wrapper(module)]
    if wrapped:
        raise SpecError(
            f"{len(wrapped)} modules of the model ({wrapped[0]} first) are PEFT's, and a checkpoint would have names that nothing loads: "
            "vlmkit.training.adapters.merge_adapters makes the adapters part of the weights, "
            "vlmkit.training.adapter_files.save_adapters writes them alone; a PeftModel has merge_and_unload and its own save_pretrained"
        )
