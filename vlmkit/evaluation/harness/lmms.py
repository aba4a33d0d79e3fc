"""A model of lmms-eval (Zhang et al. 2024, arXiv:2407.12772): `--model vlmkit`, which it finds by an entry point where both are installed.

    python -m lmms_eval --model vlmkit --model_args pretrained=runs/mine --tasks textvqa_val --batch_size 8 --output_path scores

pretrained: a run, a checkpoint's directory, a hub's owner/name, or a named model with published weights. Further arguments: device, dtype,
plugin (of parts that are not vlmkit's). Of tasks those that generate answers about pictures; likelihoods and several rounds are not
answered. Several processes (accelerate launch) share the questions, each with the whole model; that has not been run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

try:
    from lmms_eval.api.model import lmms
    from lmms_eval.models.registry_v2 import ModelManifest
except ImportError as error:
    raise ImportError(f"this is a part of lmms-eval, which cannot be loaded ({error}): pip install 'vlmkit[lmms]'") from error

from vlmkit.evaluation.harness.answering import Answerer


def manifest() -> Any:
    """What the entry point names."""
    return ModelManifest(model_id="vlmkit", chat_class_path=f"{__name__}.Vlmkit")


class Vlmkit(lmms):  # type: ignore[misc]
    is_simple = False

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str = 1,
        plugin: str = "",
        **unknown: Any,
    ) -> None:
        super().__init__()
        unknown = {name: value for name, value in unknown.items() if name not in ("max_batch_size",)}
        if unknown:
            raise ValueError(f"model vlmkit takes pretrained, device, dtype, batch_size and plugin, got {', '.join(unknown)} too")
        from accelerate import Accelerator

        accelerator = Accelerator()
        self.accelerator = accelerator
        self._rank, self._world_size = accelerator.process_index, accelerator.num_processes
        place = str(accelerator.device) if self._world_size > 1 else device
        self.answer = Answerer(pretrained, device=place, dtype=dtype, plugins=[plugin] if plugin else [])
        self._device = self.answer.model.device
        self.batch_size = int(batch_size)

    @property
    def device(self) -> Any:
        return self._device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Greedy answers unless a task asks for something else, in batches of one task's options each."""
        from rich.progress import track

        answers = [""] * len(requests)
        of_options: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            of_options.setdefault(repr(sorted(request.args[2].items())), []).append(number)
        chunks = [numbers[at : at + self.batch_size] for numbers in of_options.values() for at in range(0, len(numbers), self.batch_size)]
        for chunk in track(chunks, "vlmkit answers", disable=self._rank != 0):
            said = self.answer([self._conversation(requests[number]) for number in chunk], requests[chunk[0]].args[2])
            for number, text in zip(chunk, said, strict=True):
                answers[number] = text
                self.cache_hook.add_partial("generate_until", (requests[number].args[0], requests[number].args[2]), text)
        return answers

    def _conversation(self, request: Any) -> list[dict[str, Any]]:
        _, messages, _, document, task, split = request.args
        told = messages(self.task_dict[task][split][document])
        return [{"role": message["role"], "content": [_item(item) for item in message["content"]]} for message in told]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError("vlmkit answers tasks that generate; this task asks for likelihoods")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("vlmkit answers tasks of one round; this task has several")


def _item(item: dict[str, Any]) -> dict[str, Any]:
    """Of lmms-eval's messages in the chat format."""
    if item["type"] in ("image", "video"):
        return {"type": item["type"], item["type"]: item["url"]}
    if item["type"] == "text":
        return {"type": "text", "text": item["text"]}
    raise ValueError(f"vlmkit's models take pictures, films and words, this task shows {item['type']}")
