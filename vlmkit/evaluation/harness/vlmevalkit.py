"""A model of VLMEvalKit (Duan et al. 2024, arXiv:2407.11691), whose catalogue of models is a dictionary:

    from vlmkit.evaluation.harness.vlmevalkit import add
    add("mine", "runs/mine")            # now "mine" is a model of VLMEvalKit's

    python -m vlmkit.evaluation.harness.vlmevalkit mine=runs/mine -- --data TextVQA_VAL --model mine    # its run.py, with the model added

The second runs the file run.py of a checkout, which is not in VLMEvalKit's package: in the directory where it lies. One question at a time,
as VLMEvalKit asks; torchrun spreads the questions.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

from vlmkit.evaluation.harness.answering import Answerer


def model_class() -> Any:
    """VLMEvalKit's base class filled in. Raises ImportError where it is not installed."""
    try:
        base: Any = import_module("vlmeval.vlm.base").BaseModel
    except ImportError as error:
        raise ImportError(f"VLMEvalKit cannot be loaded ({error}): pip install it from github.com/open-compass/VLMEvalKit") from error

    class Vlmkit(base):  # type: ignore[misc]
        INTERLEAVE = True

        def __init__(self, checkpoint: str, *, max_new_tokens: int = 512, **options: Any) -> None:
            """options: of `Answerer`."""
            super().__init__()
            self.answer, self.max_new_tokens = Answerer(checkpoint, **options), max_new_tokens

        def generate_inner(self, message: Sequence[dict[str, str]], dataset: str | None = None) -> str:
            return self.answer([conversation(message)], {"max_new_tokens": self.max_new_tokens})[0]

    return Vlmkit


def conversation(message: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Of VLMEvalKit's parts {"type": "image" or "text", "value": ...} in the chat format."""
    names = {"image": "image", "video": "video", "text": "text"}
    return [{"role": "user", "content": [{"type": part["type"], names[part["type"]]: part["value"]} for part in message]}]


def add(name: str, checkpoint: str, **options: Any) -> None:
    """Put a checkpoint into VLMEvalKit's catalogue under a name. options: of `Answerer`, and max_new_tokens."""
    models = model_class()
    import_module("vlmeval.config").supported_VLM[name] = partial(models, checkpoint, **options)


def main(argv: Sequence[str]) -> None:
    """NAME=CHECKPOINT[,max_new_tokens=N][,device=WHERE][,dtype=WHAT] for each model, "--", and what run.py takes."""
    own = argv.index("--") if "--" in argv else len(argv)
    if not own or not all("=" in pair for pair in argv[:own]):
        sys.exit(f"name each model as NAME=CHECKPOINT before '--', got {' '.join(argv[:own]) or 'none'}")
    for pair in argv[:own]:
        name, _, told = pair.partition("=")
        checkpoint, *rest = told.split(",")
        options: dict[str, Any] = dict(option.split("=", 1) for option in rest)
        if "max_new_tokens" in options:
            options["max_new_tokens"] = int(options["max_new_tokens"])
        add(name, checkpoint, **options)
    sys.argv = ["run.py", *argv[own + 1 :]]
    runpy.run_path("run.py", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
