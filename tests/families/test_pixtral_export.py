"""What of Pixtral the classes of transformers cannot express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.preprocess.policies.edge_cap import EdgeCap
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import SpecError

ROWS = vlmkit.architecture("pixtral-tiny").layout
RUN = vlmkit.architecture("llava-1.5-tiny").layout


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("pixtral-tiny", {"layout": RUN}, "splices 'rows' of a 'pixtral' tower's tokens, but the layout is 'run'"),
        ("llava-1.5-tiny", {"layout": ROWS}, "splices 'run' of a 'clip' tower's tokens, but the layout is 'rows'"),
        ("pixtral-tiny", {"layout": ROWS.replace(image_end=None)}, "image_end is None"),
        ("pixtral-tiny", {"policy": Squash(size=112)}, "policy Squash"),
        ("pixtral-tiny", {"policy": EdgeCap(longest=112, factor=32)}, "whole patches of 16 pixels, but .*factor=32"),
        ("llava-1.5-tiny", {"policy": EdgeCap(longest=28, factor=28)}, "LlavaProcessor makes squares, but the policy is 'edge_cap'"),
    ],
)
def test_an_architecture_without_a_processor_is_refused(tmp_path: Path, name: str, changes: dict[str, Any], reason: str) -> None:
    arch = vlmkit.architecture(name).replace(**changes)
    with pytest.raises(SpecError, match=reason):
        export(vlmkit.build(arch), vlmkit.build_processor(arch), tmp_path)
    assert not list(tmp_path.iterdir())
