"""Published makes of conversations: how each writes turns, in Jinja of the style of its checkpoints, and with which tokenizer.

Roles, marks and rules are those of the formats' documentation; the Jinja is written here. Nothing is smoothed over: templates raise
for roles that they have no place for, trim, put images first, leave out end tokens or begin with a token that the tokenizer puts
there as well, where the published ones do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from published.words import byte_level, llama, ordinary, sentencepiece, stripping, unigram


@dataclass(frozen=True)
class Make:
    """A row of the table."""

    title: str
    template: str | None
    tokenizer: Callable[[], Any]
    family: str = "llava"
    """The function of `published.directories` that puts a model around it."""
    image: str = "<image>"
    """The image token, as the tokenizer spells it."""
    language: str = "llama"
    """`model_type` of its language model."""
    processor: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of its processor."""
    supervised: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Kind of conversation -> what is supervised of it, written by hand: each answer with the end of its turn."""

    @property
    def name(self) -> str:
        return "-".join(self.title.lower().replace(",", "").replace("(", "").replace(")", "").replace(".", "").split())


ALTERNATE = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate: user, assistant, user, assistant') }}{% endif %}{% endfor %}"
)
WORDS = (
    "{% macro words(content) %}{% if content is string %}{{ content }}{% else %}{% for item in content %}"
    "{% if item['type'] == 'image' %}{{ '<image>' }}{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endmacro %}"
)
"""Text and images in their order; a placeholder and nothing around it."""
LINES = WORDS.replace("'<image>'", r"'<image>\n'")
"""The same with a line for each image."""

IMAGES_FIRST = r"""
{%- for message in messages %}
    {%- if message['role'] != 'system' %}{{ message['role'] | upper + ': ' }}{% endif %}
    {%- for item in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}
    {%- if message['role'] != 'assistant' %}
        {%- for item in message['content'] | selectattr('type', 'equalto', 'text') %}{{ item['text'] + ' ' }}{% endfor %}
    {%- else %}
        {%- for item in message['content'] | selectattr('type', 'equalto', 'text') %}
            {%- generation %}{{ item['text'] + ' ' }}{% endgeneration %}
        {%- endfor %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""

VICUNA_1_5 = (
    LINES + "{% if messages[0]['role'] == 'system' %}{% set said = words(messages[0]['content']) %}{% set turns = messages[1:] %}{% else %}"
    "{% set said = 'A chat between a curious person and an assistant. The assistant is polite.' %}{% set turns = messages %}{% endif %}"
    "{{ bos_token + said }}"
    "{% for message in turns %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ ' USER: ' + words(message['content']) | trim }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ASSISTANT: ' + words(message['content']) | trim + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)

VICUNA_0 = (
    LINES + "{% for message in messages %}{% if message['role'] == 'system' %}{{ words(message['content']) }}"
    "{% elif message['role'] == 'user' %}{{ '### Human: ' + words(message['content']) }}"
    "{% else %}{{ '### Assistant: ' + words(message['content']) }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:' }}{% endif %}"
)

MISTRAL_V1 = (
    LINES + "{{ bos_token }}" + ALTERNATE + "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + words(message['content']) + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + words(message['content']) + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)


def mistral(user: str, answer: str, system: str) -> str:
    """Mistral from v2 on, with a system message in the last question. Jinja expressions: the question of `text`, its answer, the system
    message with what stands behind it."""
    return (
        LINES + "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set said = words(messages[0]['content']) %}"
        "{% set turns = messages[1:] %}{% else %}{% set said = none %}{% set turns = messages %}{% endif %}"
        "{% for message in turns %}{% set text = words(message['content']) %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('After the optional system message, conversation roles must alternate user/assistant') }}{% endif %}"
        "{% if message['role'] == 'user' %}{% if loop.last and said is not none %}{% set text = " + system + " + text %}{% endif %}"
        "{{ " + user + " }}{% elif message['role'] == 'assistant' %}{{ " + answer + " }}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}"
    )


MISTRAL_V2 = mistral("'[INST] ' + text + '[/INST]'", "' ' + text | trim + eos_token", r"said + '\n\n'")
MISTRAL_V3 = mistral("'[INST] ' + text + '[/INST]'", "' ' + text + eos_token", r"said + '\n\n'")
MISTRAL_TEKKEN = mistral("'[INST]' + text + '[/INST]'", "text + eos_token", r"said + '\n\n'").replace(r"<image>\n", "[IMG]")

MISTRAL_V7 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{% if message['content'] is string %}"
    "{{ '[INST]' + message['content'] + '[/INST]' }}{% else %}{{ '[INST]' }}{% for block in message['content'] %}"
    "{% if block['type'] == 'text' %}{{ block['text'] }}{% elif block['type'] in ['image', 'image_url'] %}{{ '[IMG]' }}"
    "{% else %}{{ raise_exception('Only text and image blocks are supported in message content!') }}{% endif %}{% endfor %}"
    "{{ '[/INST]' }}{% endif %}{% elif message['role'] == 'system' %}{{ '[SYSTEM_PROMPT]' }}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{{ message['content'][0]['text'] }}{% endif %}{{ '[/SYSTEM_PROMPT]' }}"
    "{% elif message['role'] == 'assistant' %}{% if message['content'] is string %}{{ message['content'] + eos_token }}"
    "{% else %}{{ message['content'][0]['text'] + eos_token }}{% endif %}"
    "{% else %}{{ raise_exception('Only user, system and assistant roles are supported!') }}{% endif %}{% endfor %}"
)

LLAMA_2 = (
    LINES + "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set said = words(messages[0]['content']) %}"
    "{% else %}{% set turns = messages %}{% set said = false %}{% endif %}"
    "{% for message in turns %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and said != false %}{% set text = '<<SYS>>\\n' + said + '\\n<</SYS>>\\n\\n' + words(message['content']) %}"
    "{% else %}{% set text = words(message['content']) %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + text | trim + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + text | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)

LLAMA_3 = (
    LINES + "{% for message in messages %}"
    "{% set text = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + words(message['content']) | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set text = bos_token + text %}{% endif %}{{ text }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)

CHATML = (
    WORDS.replace("'<image>'", r"'\n<image>'") + "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + words(message['content']) + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

QWEN_2_5 = (
    LINES + "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + words(messages[0]['content']) + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif %}{%- for message in messages %}"
    "{%- if message.role == 'user' or (message.role == 'system' and not loop.first) or message.role == 'assistant' %}"
    "{{- '<|im_start|>' + message.role + '\\n' + words(message.content) + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

YI = CHATML.replace(r"'\n<image>'", r"'<image>\n'")

SMOLLM_2 = (
    LINES + "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + words(message['content']) + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

GEMMA = (
    LINES + "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\\n' + words(message['content']) | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)

GEMMA_3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% if messages[0]['content'] is string %}"
    "{% set before = messages[0]['content'] + '\\n\\n' %}{% else %}"
    "{% set before = messages[0]['content'][0]['text'] + '\\n\\n' %}{% endif %}"
    "{% set turns = messages[1:] %}{% else %}{% set before = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + (before if loop.first else '') }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% elif message['content'] is iterable %}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<image>' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}"
    "{% else %}{{ raise_exception('Invalid content type') }}{% endif %}{{ '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)

PHI_3 = (
    LINES
    + "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\\n' + words(message['content']) + '<|end|>\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>\\n' + words(message['content']) + '<|end|>\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>\\n' + words(message['content']) + '<|end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)

COHERE = (
    LINES + "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}"
    "{% set said = words(messages[0]['content']) %}{% else %}{% set turns = messages %}{% set said = false %}{% endif %}"
    "{% if said != false %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + said + '<|END_OF_TURN_TOKEN|>' }}{% endif %}"
    "{% for message in turns %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set text = words(message['content']) %}{% if message['role'] == 'user' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + text.strip() + '<|END_OF_TURN_TOKEN|>' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' + text.strip() + '<|END_OF_TURN_TOKEN|>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)

BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"  # noqa: RUF001
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"  # noqa: RUF001

DEEPSEEK_LLM = (
    LINES + "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}"
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + words(message['content']) + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + words(message['content']) + eos_token }}"
    "{% elif message['role'] == 'system' %}{{ words(message['content']) + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

DEEPSEEK_V3 = (
    LINES + "{% set ns = namespace(said='', answered=false) %}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{% set ns.said = ns.said + words(message['content']) %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.said }}"
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '" + USER + "' + words(message['content']) }}"
    "{% elif message['role'] == 'assistant' %}{{ '" + ASSISTANT + "' + words(message['content']) + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ASSISTANT + "' }}{% endif %}"
)

OLMO_2 = (
    LINES + "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ '<|system|>\\n' + words(message['content']) + '\\n' }}{% elif message['role'] == 'user' %}"
    "{{ '<|user|>\\n' + words(message['content']) + '\\n' }}{% elif message['role'] == 'assistant' %}{% if not loop.last %}"
    "{{ '<|assistant|>\\n' + words(message['content']) + eos_token + '\\n' }}{% else %}"
    "{{ '<|assistant|>\\n' + words(message['content']) + eos_token }}{% endif %}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}"
)

ZEPHYR = (
    LINES
    + "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\\n' + words(message['content']) + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\\n' + words(message['content']) + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\\n'  + words(message['content']) + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)

OWN_SENTENCES = (
    LINES + "Below is an instruction that describes a task. Answer it politely.\n\n"
    "{% for message in messages %}{% if message['role'] == 'user' %}### Instruction:\n{{ words(message['content']) }}\n\n"
    "{% elif message['role'] == 'assistant' %}### Response:\n{{ words(message['content']) }}{{ eos_token }}\n\n"
    "{% else %}{{ words(message['content']) }}\n\n{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)

GRANITE = (
    LINES.replace("item['text']", "item.text") + "{%- if messages[0]['role'] == 'system' %}{%- set said = words(messages[0]['content']) %}"
    "{%- set rest = messages[1:] %}{%- else %}{%- set said = 'You are Granite, developed by IBM. You are a helpful AI assistant.' %}"
    "{%- set rest = messages %}{%- endif %}{{- '<|start_of_role|>system<|end_of_role|>' + said + '<|end_of_text|>\\n' }}"
    "{%- for message in rest %}{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + words(message['content']) "
    "+ '<|end_of_text|>\\n' }}{%- if loop.last and add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}"
    "{%- endif %}{%- endfor %}"
)

QWEN_3 = (
    LINES
    + "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + words(messages[0].content) + '<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{%- set content = words(message.content) %}"
    "{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}"
    "{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}{%- elif message.role == 'assistant' %}"
    "{%- set reasoning = '' %}{%- if '</think>' in content %}"
    "{%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
    "{%- if loop.last and reasoning %}"
    "{{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\\n' + content }}{%- endif %}{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)
"""What an answer thought stays in the last one alone."""

DEEPSEEK_R1 = (
    LINES + "{{ bos_token }}{% for message in messages %}{% set content = words(message['content']) %}"
    "{% if message['role'] == 'user' %}{{ '" + USER + "' + content }}{% elif message['role'] == 'assistant' %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '" + ASSISTANT + "' + content + eos_token }}{% else %}{{ content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ASSISTANT + "<think>\\n' }}{% endif %}"
)
"""The prompt for an answer begins with what an answer that stands there does not show."""

GLM_4 = (
    LINES + "[gMASK]<sop>{% for message in messages %}{% if message['role'] == 'user' %}<|user|>\n{{ words(message['content']) }}"
    "{% elif message['role'] == 'assistant' %}<|assistant|>\n{{ words(message['content']) | trim }}"
    "{% elif message['role'] == 'system' %}<|system|>\n{{ words(message['content']) }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""An answer ends where the next role begins."""

KIMI = (
    WORDS.replace("'<image>'", "'<|media_start|>image<|media_content|><image><|media_end|>'") + "{%- for message in messages -%}"
    "{%- if loop.first and messages[0]['role'] != 'system' -%}{{ '<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|>' }}"
    "{%- endif -%}{%- if message['role'] == 'system' -%}{{ '<|im_system|>' }}{%- elif message['role'] == 'user' -%}{{ '<|im_user|>' }}"
    "{%- else -%}{{ '<|im_assistant|>' }}{%- endif -%}"
    "{{ message['role'] + '<|im_middle|>' + words(message['content']) + '<|im_end|>' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_assistant|>assistant<|im_middle|>' }}{%- endif -%}"
)

OPENCHAT = (
    LINES + "{{ bos_token }}{% for message in messages %}"
    "{{ 'GPT4 Correct ' + message['role'].title() + ': ' + words(message['content']) + '<|end_of_turn|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}"
)

GENERATION = (
    LINES + "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\\n' }}{% generation %}"
    "{{ words(message['content']) + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}{% else %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + words(message['content']) + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

IDEFICS = (
    "{% for message in messages %}{{ message['role'].capitalize() }}{% if message['content'][0]['type'] == 'image' %}{{ ':' }}"
    "{% else %}{{ ': ' }}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

PALIGEMMA = (
    "{%- for message in messages -%}{%- for item in message['content'] | selectattr('type', 'equalto', 'image') -%}{{ '<image>' }}"
    "{%- endfor -%}{%- endfor -%}{%- for message in messages -%}"
    "{%- for item in message['content'] | selectattr('type', 'equalto', 'text') -%}{{ item['text'] }}{%- endfor -%}"
    "{%- if message['role'] == 'assistant' -%}{{ eos_token }}{%- elif not loop.last -%}{{ '\\n' }}{%- endif -%}{%- endfor -%}"
)

JANUS = (
    "{%- set said = namespace(none=true) -%}{%- for message in messages -%}"
    "{%- set role = '<|User|>' if message['role'] == 'user' else '<|Assistant|>' if message['role'] == 'assistant' else '' -%}"
    "{%- if role -%}{{ role + ': ' }}{%- endif -%}"
    "{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- else -%}{%- for item in message['content'] -%}"
    "{%- if item['type'] == 'image' -%}{%- if not loop.first -%}{{ '\\n' }}{%- endif -%}{{ '<image_placeholder>' }}"
    "{%- if not loop.last -%}{{ '\\n' }}{%- endif -%}"
    "{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{%- if message['role'] == 'assistant' -%}{{ eos_token }}{%- else -%}{{ '\\n\\n' }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|Assistant|>:' }}{%- endif -%}"
)

LLAMA_3_2_VISION = (
    "{{- bos_token }}\n"
    "{%- set image_ns = namespace(has_images=false) %}{%- for message in messages %}{%- if message['content'] is not string %}"
    "{%- for content in message['content'] %}{%- if content['type'] == 'image' %}{%- set image_ns.has_images = true %}{%- endif %}"
    "{%- endfor %}{%- endif %}{%- endfor %}"
    "{%- if messages[0]['role'] == 'system' %}{%- if messages[0]['content'] is string %}{%- set said = messages[0]['content'] | trim %}"
    "{%- else %}{%- set said = messages[0]['content'][0]['text'] | trim %}{%- endif %}"
    "{%- set messages = messages[1:] %}{%- set own = true %}"
    "{%- else %}{%- set said = '' %}{%- set own = false %}{%- endif %}"
    "{%- if own and image_ns.has_images %}"
    "{{- raise_exception('Prompting with images is incompatible with system messages.') }}{%- endif %}"
    "{%- if not image_ns.has_images %}{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n\\n' }}"
    "{{- said }}{{- '<|eot_id|>' }}{%- endif %}"
    "{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{%- if message['content'] is string %}{{- message['content'] | trim }}{%- else %}{%- for content in message['content'] %}"
    "{%- if content['type'] == 'image' %}{{- '<|image|>' }}{%- elif content['type'] == 'text' %}{{- content['text'] | trim }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{- '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)

QWEN_2_VL = (
    "{% set image_count = namespace(value=0) %}{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def answers(end: str) -> dict[str, tuple[str, ...]]:
    """What is supervised where each answer ends with `end`; a blank before it is another test's."""
    return {"three turns": (f"A boat.{end}", f"The sun.{end}"), "answered": (f"The first one.{end}",)}


IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
CHATML_ROLES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
LLAMA_3_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
TEKKEN = ("<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
TURNS = ("<BOS_TOKEN>", *(f"<|{name}_TOKEN|>" for name in ("START_OF_TURN", "END_OF_TURN", "USER", "CHATBOT", "SYSTEM")))
VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def deepseek() -> Any:
    """Its marks of roles are added tokens that are not special, as are those around thoughts."""
    ordinary_ones = (ordinary(token) for token in (USER, ASSISTANT, "<think>", "</think>"))
    return byte_level("<image>", BEGIN, END, *ordinary_ones, begins=BEGIN, bos_token=BEGIN, eos_token=END)


def janus() -> Any:
    image = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    marks = (*image.values(), "<|User|>", "<|Assistant|>", BEGIN, END)
    return byte_level(*marks, begins=BEGIN, bos_token=BEGIN, eos_token=END, extra_special_tokens=image)


MAKES: tuple[Make, ...] = (
    Make("Vicuna 0", VICUNA_0, lambda: sentencepiece("<image>", scheme="normalizer")),
    Make("Vicuna 1, images first", IMAGES_FIRST, lambda: sentencepiece("<image>", scheme="normalizer"), supervised=answers("")),
    Make("Vicuna 1, images first, legacy", IMAGES_FIRST, lambda: llama("<image>", legacy=True)),
    Make("Vicuna 1, images first, not legacy", IMAGES_FIRST, lambda: llama("<image>", legacy=False)),
    Make("Vicuna 1.5", VICUNA_1_5, lambda: llama("<image>", legacy=False), supervised=answers("</s>")),
    Make("Vicuna 1.5, LLaVA-NeXT", VICUNA_1_5, lambda: sentencepiece("<image>", scheme="always"), "llava_next"),
    Make("Mistral v1", MISTRAL_V1, lambda: llama("<image>", legacy=True), language="mistral", supervised=answers("</s>")),
    Make("Mistral v1, LLaVA-NeXT", MISTRAL_V1, lambda: llama("<image>", legacy=False), "llava_next", language="mistral"),
    Make("Mistral v2", MISTRAL_V2, lambda: sentencepiece("<image>", scheme="first"), language="mistral"),
    Make("Mistral v3", MISTRAL_V3, lambda: llama("<image>", "[INST]", "[/INST]", legacy=False), language="mistral"),
    Make(
        "Mistral v3 Tekken",
        MISTRAL_TEKKEN,
        lambda: byte_level(*TEKKEN, begins="<s>", splits="llama3", bos_token="<s>", eos_token="</s>"),
        "pixtral",
        "[IMG]",
        "mistral",
        supervised=answers("</s>"),
    ),
    Make(
        "Mistral v7",
        MISTRAL_V7,
        lambda: byte_level(*TEKKEN, splits="llama3", bos_token="<s>", eos_token="</s>"),
        "pixtral",
        "[IMG]",
        "mistral",
        supervised=answers("</s>"),
    ),
    Make("Llama 2", LLAMA_2, lambda: llama("<image>", legacy=True)),
    Make("Llama 2, not legacy", LLAMA_2, lambda: llama("<image>", legacy=False)),
    Make(
        "Llama 3",
        LLAMA_3,
        lambda: byte_level(
            "<image>", *LLAMA_3_TOKENS, begins=LLAMA_3_TOKENS[0], splits="llama3", bos_token=LLAMA_3_TOKENS[0], eos_token="<|eot_id|>"
        ),
        supervised=answers("<|eot_id|>"),
    ),
    Make(
        "Llama 3.2-Vision",
        LLAMA_3_2_VISION,
        lambda: byte_level(
            "<|image|>", *LLAMA_3_TOKENS, begins=LLAMA_3_TOKENS[0], splits="llama3", bos_token=LLAMA_3_TOKENS[0], eos_token="<|eot_id|>"
        ),
        "mllama",
        "<|image|>",
    ),
    Make("ChatML", CHATML, lambda: byte_level("<image>", *IM, **CHATML_ROLES), language="qwen2", supervised=answers("<|im_end|>")),
    Make("Qwen 2.5", QWEN_2_5, lambda: byte_level("<image>", *IM, **CHATML_ROLES), language="qwen2", supervised=answers("<|im_end|>")),
    Make(
        "Qwen 3",
        QWEN_3,
        lambda: byte_level("<image>", *IM, *map(ordinary, ("<think>", "</think>")), **CHATML_ROLES),
        language="qwen3",
        supervised=answers("<|im_end|>"),
    ),
    Make(
        "ChatML with generation blocks",
        GENERATION,
        lambda: byte_level("<image>", *IM, splits="llama3", **CHATML_ROLES),
        language="qwen2",
        supervised=answers("<|im_end|>"),
    ),
    Make("Qwen2-VL", QWEN_2_VL, lambda: byte_level(*IM, *VISION, **CHATML_ROLES), "qwen2_vl", "<|image_pad|>"),
    Make("Yi", YI, lambda: llama("<image>", *IM, legacy=True, **CHATML_ROLES), "llava_next"),
    Make(
        "SmolLM 2",
        SMOLLM_2,
        lambda: byte_level("<image>", *IM, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"),
        supervised=answers("<|im_end|>"),
    ),
    Make(
        "Gemma",
        GEMMA,
        lambda: sentencepiece("<image>", "<bos>", "<start_of_turn>", "<end_of_turn>", scheme="never", begins="<bos>", bos_token="<bos>"),
        language="gemma",
        supervised=answers("<end_of_turn>"),
    ),
    Make(
        "Gemma 3",
        GEMMA_3,
        lambda: sentencepiece("<image>", "<bos>", "<start_of_turn>", "<end_of_turn>", scheme="never", begins="<bos>", bos_token="<bos>"),
        language="gemma2",
    ),
    Make(
        "Phi 3",
        PHI_3,
        lambda: llama(
            "<image>",
            "<|endoftext|>",
            *(stripping(f"<|{name}|>", right=True) for name in ("user", "assistant", "system", "end")),
            legacy=False,
            eos_token="<|endoftext|>",
            begins=False,
        ),
        language="phi3",
    ),
    Make(
        "Cohere",
        COHERE,
        lambda: byte_level("<image>", *TURNS, begins="<BOS_TOKEN>", bos_token="<BOS_TOKEN>", eos_token="<|END_OF_TURN_TOKEN|>"),
        language="cohere",
        supervised=answers("<|END_OF_TURN_TOKEN|>"),
    ),
    Make("DeepSeek LLM", DEEPSEEK_LLM, lambda: byte_level("<image>", BEGIN, END, begins=BEGIN, bos_token=BEGIN, eos_token=END)),
    Make("DeepSeek V3", DEEPSEEK_V3, deepseek, supervised=answers(END)),
    Make("DeepSeek R1", DEEPSEEK_R1, deepseek, supervised=answers(END)),
    Make(
        "OLMo 2",
        OLMO_2,
        lambda: byte_level("<image>", *IM, splits="llama3", bos_token="<|endoftext|>", eos_token="<|endoftext|>", pad_token="<|im_end|>"),
        language="olmo2",
        supervised=answers("<|endoftext|>"),
    ),
    Make(
        "GLM 4",
        GLM_4,
        lambda: byte_level(
            "<image>",
            *("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"),
            splits="llama3",
            eos_token="<|endoftext|>",
        ),
        language="glm4",
    ),
    Make(
        "Kimi-VL",
        KIMI,
        lambda: byte_level(
            "<image>",
            *("[BOS]", "[EOS]", "<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>"),
            *("<|media_start|>", "<|media_content|>", "<|media_end|>"),
            bos_token="[BOS]",
            eos_token="[EOS]",
        ),
        "llava_next",
        supervised=answers("<|im_end|>"),
    ),
    Make(
        "OpenChat",
        OPENCHAT,
        lambda: llama("<image>", "<|end_of_turn|>", legacy=True, eos_token="<|end_of_turn|>"),
        language="mistral",
        supervised=answers("<|end_of_turn|>"),
    ),
    Make("Vicuna 1.5, unigram", VICUNA_1_5, lambda: unigram("<image>"), supervised=answers("</s>")),
    Make("Yi, blanks before words", YI, lambda: byte_level("<image>", *IM, blank=True, **CHATML_ROLES)),
    Make("Zephyr", ZEPHYR, lambda: sentencepiece("<image>", ordinary("<box>"), scheme="normalizer"), language="mistral"),
    Make("Own sentences", OWN_SENTENCES, lambda: byte_level("<image>", "</s>", ordinary("<think>"), ordinary("<box>"), eos_token="</s>")),
    Make(
        "Granite",
        GRANITE,
        lambda: byte_level(
            "<image>", "<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", bos_token="<|end_of_text|>", eos_token="<|end_of_text|>"
        ),
        "llava_next",
        language="granite",
    ),
    Make(
        "Idefics2",
        IDEFICS,
        lambda: llama("<image>", "<fake_token_around_image>", "<end_of_utterance>", legacy=False),
        "idefics2",
        language="mistral",
    ),
    Make(
        "Idefics2, legacy",
        IDEFICS,
        lambda: llama("<image>", "<fake_token_around_image>", "<end_of_utterance>", legacy=True),
        "idefics2",
        language="mistral",
    ),
    Make(
        "Idefics3",
        "<|begin_of_text|>" + IDEFICS,
        lambda: byte_level(
            "<image>",
            "<fake_token_around_image>",
            "<end_of_utterance>",
            *LLAMA_3_TOKENS,
            begins=LLAMA_3_TOKENS[0],
            splits="llama3",
            bos_token=LLAMA_3_TOKENS[0],
            eos_token="<|eot_id|>",
        ),
        "idefics3",
    ),
    Make(
        "SmolVLM",
        "<|im_start|>" + IDEFICS,
        lambda: byte_level(
            "<image>",
            "<fake_token_around_image>",
            "<end_of_utterance>",
            "<global-img>",
            *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
            *IM,
            bos_token="<|im_start|>",
            eos_token="<end_of_utterance>",
        ),
        "smolvlm",
    ),
    Make(
        "PaliGemma with turns",
        PALIGEMMA,
        lambda: sentencepiece("<image>", "<bos>", "<eos>", scheme="never", begins="<bos>", bos_token="<bos>", eos_token="<eos>"),
        "paligemma",
        language="gemma",
    ),
    Make("Janus", JANUS, janus, "janus", "<image_placeholder>", processor={"use_default_system_prompt": False}),
    Make("Janus, default system message", JANUS, janus, "janus", "<image_placeholder>", processor={"use_default_system_prompt": True}),
)
