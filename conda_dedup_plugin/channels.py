"""What people call a channel, and what conda finds it by. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit

DEFAULTS, FORGE = "defaults", "conda-forge"
SUBDIR = re.compile(r"noarch|(linux|osx|win|emscripten|wasi|freebsd|zos)-\w+")
#: What conda puts into an URL for who may read a channel: a user with a password, or a token.
_SECRETS = re.compile(r"(?<=://)[^/@]*@|/t/[^/]+(?=/)")
#: Parts of ``defaults``, by the last two components of their URL or their name.
_DEFAULTS = re.compile(r"(.*/)?pkgs/(main|r|free|pro|msys2|archive|mro)|defaults|main|anaconda")
_HOSTS = ("conda.anaconda.org", "repo.anaconda.com", "repo.continuum.io")


def without_secrets(url: str) -> str:
    """An URL without the password or the token in it."""
    return _SECRETS.sub("", url)


@lru_cache(maxsize=1024)
def channel_of(channel: str) -> tuple[str, str]:
    """Return what people call a channel, and what conda finds it by (no password, no token, no subdir)."""
    text = without_secrets(channel.strip()).rstrip("/")
    if "://" not in text:
        name = text.rpartition("/")[0] if SUBDIR.fullmatch(text.rpartition("/")[2]) else text
        name = DEFAULTS if _DEFAULTS.fullmatch(name) else name
        return ("", "") if name in ("", "<unknown>", "@") else (name, name)
    try:
        url = urlsplit(text)
    except ValueError:
        return "", ""
    path = url.path
    if SUBDIR.fullmatch(path.rpartition("/")[2]):
        path = path.rpartition("/")[0]
    location = f"{url.scheme}://{url.netloc}{path}"
    name = path.strip("/")
    if _DEFAULTS.fullmatch(name) and (url.netloc in _HOSTS or "/" in name):
        return DEFAULTS, DEFAULTS if url.netloc in _HOSTS else location
    if url.netloc in _HOSTS:
        return name, name
    return (FORGE if name.rpartition("/")[2] == FORGE else location), location


def channel_name(channel: str) -> str:
    """What people call a channel; empty if nobody knows."""
    return channel_of(channel)[0]
