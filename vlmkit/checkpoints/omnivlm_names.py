"""OmniVLM's weights under vlmkit's names and under those of its pair of GGUF files.

Those of tower and projector are what NexaAI/llama.cpp's examples/omni-vlm/convert_image_encoder_to_gguf.py makes of transformers' names:
the first layer of the tower's MLP is `ffn_down`, the second `ffn_up`. Those of the language model are llama.cpp's, which the gguf package
knows.
"""

from __future__ import annotations

from collections.abc import Iterable

from vlmkit.gguf_files import gguf

VISION = {
    "encoder.embeddings.patch_embedding.": "v.patch_embd.",
    "encoder.embeddings.position_embedding.": "v.position_embd.",
    "encoder.encoder.layers.": "v.blk.",
    "encoder.post_layernorm.": "v.post_ln.",
    "connector.mlp.": "mm.",
}
IN_BLOCK = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_down",
    "mlp.fc2": "ffn_up",
}
HEAD = "v.head."
"""SigLIP's pooling head, which nobody reads: the published runner asks for its tensors and never uses them."""


def theirs_of(ours: Iterable[str], blocks: int) -> dict[str, str]:
    """vlmkit's names of all weights -> theirs. A head that is the embedding's own matrix has none. blocks: of the language model."""
    package = gguf()
    known = package.get_tensor_name_map(package.MODEL_ARCH.QWEN2, blocks)
    found = {}
    for name in ours:
        if name.startswith("language_model."):
            found[name] = known.get_name(name.removeprefix("language_model."), try_suffixes=(".weight", ".bias"))
        else:
            before, after = next((pair for pair in VISION.items() if name.startswith(pair[0])), ("", ""))
            found[name] = after + name.removeprefix(before)
            if after == "v.blk.":
                number, _, part = name.removeprefix(before).partition(".")
                part, _, end = part.rpartition(".")
                found[name] = f"v.blk.{number}.{IN_BLOCK.get(part, part)}.{end}"
    return found


def head_shapes(width: int, mlp: int) -> dict[str, tuple[int, ...]]:
    """Of the pooling head, as upstream's script squeezes them."""
    square, row = (width, width), (width,)
    return {
        f"{HEAD}probe": row,
        f"{HEAD}attention.in_weight": (3 * width, width),
        f"{HEAD}attention.in_bias": (3 * width,),
        f"{HEAD}attention.out.weight": square,
        f"{HEAD}attention.out.bias": row,
        f"{HEAD}ln.weight": row,
        f"{HEAD}ln.bias": row,
        f"{HEAD}ffn_down.weight": (mlp, width),
        f"{HEAD}ffn_down.bias": (mlp,),
        f"{HEAD}ffn_up.weight": (width, mlp),
        f"{HEAD}ffn_up.bias": row,
    }
