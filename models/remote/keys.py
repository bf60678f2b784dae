"""Addresses and keys: keys come from the environment at the moment of use and appear in no text we write."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from treegym.errors import ConfigError

__all__ = ["checked_url", "is_loopback", "key_from", "redact", "redact_bytes"]

HIDDEN = "[key hidden]"
PART = 8  # characters of a key that would help to guess it


def is_loopback(host: str | None) -> bool:
    """Whether a host name is this machine alone."""
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_url(url: str, *, sends_key: bool, insecure: bool = False) -> str:
    """Returns a base URL without its last slash, or raises if it cannot be used, or not with a key."""
    try:
        parts = urlsplit(url)
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        raise ConfigError("the base URL cannot be read; write it like http://127.0.0.1:8000/v1") from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # Not quoted back: what is there may be a key.
        raise ConfigError("a base URL holds no user, key, query or fragment; name the key's variable with key_env=")
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_fits:
        raise ConfigError(f"the base URL is {url!r}; write it like http://127.0.0.1:8000/v1")
    if sends_key and parts.scheme == "http" and not is_loopback(parts.hostname) and not insecure:
        raise ConfigError(
            f"a key would travel unencrypted to {parts.hostname}; use https, or insecure=True on a network you trust"
        )
    return url.rstrip("/")


def key_from(variable: str | None) -> str | None:
    """Returns the key in an environment variable; None when no variable was named."""
    if variable is None:
        return None
    if not variable.replace("_", "").isalnum() or not variable.isascii() or variable[0].isdigit():
        # Someone may have passed the key itself, so it is not repeated here.
        raise ConfigError("key_env is the name of an environment variable (letters, digits, _), not a key")
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {variable} is not set; put the server's key in it")
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"the key in the environment variable {variable} holds characters that no header can carry")
    return key


def redact(text: str, variable: str | None) -> str:
    """Returns `text` without the key and every part of it of eight characters or more.

    Servers like to repeat keys in their refusals, and whoever shortens a refusal may cut through one.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if not key:
        return text
    text = text.replace(key, HIDDEN)
    parts = {key[at : at + PART] for at in range(len(key) - PART + 1)}
    kept, at = [], 0
    while at < len(text):
        end = at
        while text[end : end + PART] in parts:
            end += 1
        kept.append(HIDDEN if end > at else text[at])
        at = end + PART - 1 if end > at else at + 1
    return "".join(kept)


def redact_bytes(raw: bytes, variable: str | None) -> bytes:
    """Returns what a server sent without the key, before anything is read in it or cut off it."""
    key = os.environ.get(variable, "").strip() if variable else ""
    return raw.replace(key.encode(), HIDDEN.encode()) if key else raw
