"""transformers' Auto classes know vlmkit's checkpoints after `import vlmkit`, in whatever order things are imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.tiny import picture, shared

MODELS = "AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM"
ALL = f"from transformers import AutoConfig, AutoProcessor, {MODELS}"
ORDERS = {
    "vlmkit, then the classes": ["import vlmkit", ALL],
    "the classes, then vlmkit": [ALL, "import vlmkit"],
    "transformers, then vlmkit": ["import transformers", "import vlmkit", ALL],
    "some of the classes, vlmkit, the others": ["from transformers import AutoConfig", "import vlmkit", ALL],
    "vlmkit's model before the classes": ["import vlmkit.model", ALL],
}

SCRIPT = """
import json, os, sys, tempfile, traceback
import torch, torchvision
assert "transformers" not in sys.modules and "vlmkit" not in sys.modules
told = {}
for name, imports in json.loads(sys.argv[1]).items():
    out = tempfile.TemporaryFile("w+")
    child = os.fork()  # what is slow to load is loaded once; transformers and vlmkit are loaded by each child for itself
    if not child:
        try:
            exec("\\n".join(imports))
            model = AutoModelForImageTextToText.from_pretrained(sys.argv[2])
            for auto_class in (AutoModel, AutoModelForCausalLM, AutoModelForMultimodalLM):
                assert type(auto_class.from_pretrained(sys.argv[2])) is type(model)
            processor = AutoProcessor.from_pretrained(sys.argv[2])
            config = AutoConfig.from_pretrained(sys.argv[2])
            batch = processor([{"role": "user", "content": "hi"}])
            shape = list(model(**batch).logits.shape)
            out.write(json.dumps([type(model).__module__, type(processor).__module__, type(config).__module__, shape]))
        except BaseException:
            out.write(json.dumps(traceback.format_exc()))
        out.flush()
        os._exit(0)
    os.waitpid(child, 0)
    out.seek(0)
    told[name] = json.loads(out.read())
print(json.dumps(told))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_auto_classes_load_a_checkpoint_in_every_order_of_imports(tmp_path: Path) -> None:
    built, processor = shared()
    built.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    arguments = [sys.executable, "-c", SCRIPT, json.dumps(ORDERS), str(tmp_path)]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    tokens = processor([{"role": "user", "content": "hi"}])["input_ids"].shape[1]
    wanted = ["vlmkit.model", "vlmkit.processor", "vlmkit.config", [1, tokens, 264]]
    assert json.loads(ran.stdout) == dict.fromkeys(ORDERS, wanted)


def test_a_pipeline_of_transformers_answers_messages_and_texts(tmp_path: Path) -> None:
    from transformers import pipeline

    built, processor = shared()
    built.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    ask = pipeline("image-text-to-text", model=str(tmp_path))
    image = Image.fromarray(picture(56, 84))
    messages = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "what?"}]}]
    options = {"max_new_tokens": 4, "do_sample": False}
    ids = built.generate(**processor(messages), **options)
    answer = processor.decode(ids[0, -4:], skip_special_tokens=True)
    (said,) = ask(text=messages, return_full_text=False, generate_kwargs=options)
    assert said["generated_text"] == answer
    (said,) = ask(images=image, text="what?", return_full_text=False, generate_kwargs=options)
    assert said["generated_text"] == answer
