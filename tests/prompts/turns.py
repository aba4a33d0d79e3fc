"""How published makes write turns, in Jinja of the style of their checkpoints.

Roles, marks and rules are those of the formats' documentation; the Jinja is written here. Nothing is smoothed over: templates raise
for roles that they have no place for, trim, put images first, leave out end tokens or begin with a token that the tokenizer puts
there as well, where the published ones do.
"""

from __future__ import annotations

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

BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"  # noqa: RUF001 - the bars of these tokens are wide ones
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"  # noqa: RUF001 - the bars of these tokens are wide ones

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
