"""Links of README and docs: every file and heading that they name exists. Addresses on the web are listed, not fetched."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pages
import pytest

DOCS = pages.ROOT / "docs"
PAGES = [pages.ROOT / "README.md", pages.ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
HOSTS = {"arxiv.org", "filesystem-spec.readthedocs.io", "huggingface.co", "keepachangelog.com", "semver.org"}
"""Where links may lead: others are added here when a page needs them."""


def prose(page: Path) -> str:
    """The page without its code."""
    return re.sub(r"`[^`\n]*`", "", pages.FENCE.sub("", page.read_text(encoding="utf-8")))


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(\s*<?([^)>\s]+)", prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs spell them."""
    headings = re.findall(r"^#+ (.*)$", pages.FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_headings_exist(page: Path) -> None:
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        assert pages.ROOT in (target, *target.parents), f"{page.name} links to {link}, outside of the repository"
        if parts.fragment:
            assert parts.fragment in anchors(target), f"{page.name} links to {link}, but {target.name} has no such heading"


def test_addresses_lead_to_known_hosts() -> None:
    addresses = {link for page in PAGES for link in links(page) if urlsplit(link).scheme}
    print("\n".join(sorted(addresses)))
    assert {urlsplit(address).scheme for address in addresses} == {"https"}
    assert {urlsplit(address).netloc for address in addresses} <= HOSTS


def test_files_that_pages_name_exist() -> None:
    """`vlmkit/auto.py` in running text is a file of this repository."""
    for page in PAGES:
        text = pages.FENCE.sub("", page.read_text(encoding="utf-8"))
        for name in re.findall(r"`((?:vlmkit|docs|tests|recipes)/[\w./]+)`", text):
            assert (pages.ROOT / name).exists(), f"{page.name} names {name}, which is not there"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (pages.ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).as_posix()
        assert f": {name}\n" in navigation, f"mkdocs.yml does not list {name}"


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is in the extra 'docs'")
def test_mkdocs_builds_strictly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=pages.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
