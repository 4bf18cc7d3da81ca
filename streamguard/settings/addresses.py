"""Checks the address of a language model's server."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def check_model_server(url: str, *, allow_http: bool) -> None:
    """Accept https anywhere, and http on this machine, or elsewhere if it is allowed.

    Raises
    ------
    ValueError
        If the address has another form; the message does not repeat it, as it may contain a password.

    Examples
    --------
    >>> check_model_server("http://127.0.0.1:8000/v1", allow_http=False)
    >>> check_model_server("http://model.example.com/v1", allow_http=False)
    Traceback (most recent call last):
    ValueError: analyst.base_url: http is accepted on this machine only: use https, or set analyst.allow_http
    """
    if not url:
        return
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if (
        parts.scheme not in ("http", "https")
        or not host
        or not url.isascii()
        or not url.isprintable()
        or " " in url
    ):
        raise ValueError("analyst.base_url: not an address such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError(
            "analyst.base_url: it may contain no user, password, query or fragment; the key belongs into "
            "analyst.key_file"
        )
    if parts.scheme == "http" and not allow_http and not _is_local(host):
        raise ValueError(
            "analyst.base_url: http is accepted on this machine only: use https, or set analyst.allow_http"
        )


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
