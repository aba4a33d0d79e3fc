"""What this transformers calls a cache of keys and values, as argument and in outputs: `cache` from 5.24 on, before it
`past_key_values`."""

from __future__ import annotations

import inspect

from transformers.masking_utils import create_masks_for_generate

CACHE = "cache" if "cache" in inspect.signature(create_masks_for_generate).parameters else "past_key_values"
