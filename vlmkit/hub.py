"""Files of a hub: whether it answers is known at once, and not after half a minute."""

from __future__ import annotations

import os


def refuse_unreachable(name: str, file: str, revision: str | None = None, token: str | bool | None = None) -> None:
    """Raise OSError where a repository's file is neither kept on this machine nor to be had, for the hub does not answer: huggingface_hub
    would try six times. What a hub answers is for the caller to find out."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    if os.path.isdir(name) or try_to_load_from_cache(name, file, revision=revision) is not None:  # there, or known not to be
        return
    url = hf_hub_url(name, file, revision=revision)
    try:
        get_hf_file_metadata(url, token=token)
    except HfHubHTTPError:
        return
    except Exception as error:  # of whichever library carries the request
        raise OSError(f"{url} does not answer: {error}") from None
