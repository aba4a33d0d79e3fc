"""Files of a hub: whether it answers is known at once, and not after half a minute."""

from __future__ import annotations

import os
from collections.abc import Sequence


def refuse_unreachable(name: str, file: str | Sequence[str], revision: str | None = None, token: str | bool | None = None) -> None:
    """Raise OSError where a repository's file is neither kept on this machine nor to be had, for the hub does not answer: huggingface_hub
    would try six times. Of several files, the names that one and the same may have, one that is kept is enough. What a hub answers is for
    the caller to find out."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    files = (file,) if isinstance(file, str) else tuple(file)
    # There, or known not to be.
    if os.path.isdir(name) or any(try_to_load_from_cache(name, one, revision=revision) is not None for one in files):
        return
    url = hf_hub_url(name, files[0], revision=revision)
    try:
        get_hf_file_metadata(url, token=token)
    except HfHubHTTPError:
        return
    except Exception as error:  # of whichever library carries the request
        raise OSError(f"{url} does not answer: {error}") from None
