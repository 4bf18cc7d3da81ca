"""Checks of `serve`: who can sign in, its secrets and its directory. They warn, since many machines do not run it."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from streamguard.cli.doctor.finding import Finding, ok, warn
from streamguard.cli.doctor.places import place
from streamguard.settings.schema import Serve, Settings
from streamguard.settings.sign_in import missing
from streamguard.text import counted, printable, shortened

MAX_FILE_BYTES = 4 << 20
"""Size up to which the file of the keys is read."""
MADE = {"session_key_file": 32, "pseudonym_key_file": 32, "peer_key_file": 16}
"""Files of random bytes that an operator makes, and the fewest bytes of each."""
_SHOWN = 5


class _Key(msgspec.Struct):
    name: str
    expires: float


def serving(settings: Settings) -> Iterator[Finding]:
    """Check who can sign in, that only `serve` can read its secrets, and that its directory can be written."""
    serve = settings.serve
    if problem := missing(serve):
        yield warn("serve", f"`serve` does not start: {problem}", "complete the settings")
    yield from _keys(serve)
    for name in (*MADE, "oidc_client_secret_file", "private_key_file"):
        if path := getattr(serve, name):
            yield _secret(name, Path(path))
    found = place("serve.data_dir", serve.data_dir, needed_by="`serve` fails here")
    yield msgspec.structs.replace(found, check="serve")


def _keys(serve: Serve) -> Iterator[Finding]:
    provider = f"people sign in with {serve.oidc_issuer}" if serve.oidc_issuer else ""
    if not serve.keys_file:
        yield ok(
            "serve", provider or "no serve.keys_file is set: `serve` makes a key for a day and prints it"
        )
        return
    path, add = Path(serve.keys_file), "add a key with `streamguard keys add NAME --role ROLE`"
    try:
        with path.open("rb") as file:
            keys = msgspec.json.decode(file.read(MAX_FILE_BYTES), type=list[_Key])
        others = path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    except FileNotFoundError:
        keys, others = [], 0
    except OSError as error:
        yield warn("serve", f"serve.keys_file {path} cannot be read: {error.strerror}", _readable(path))
        return
    except (msgspec.MsgspecError, UnicodeDecodeError):
        yield warn(
            "serve", f"serve.keys_file {path} is not a list of keys", f"restore it, or delete it and {add}"
        )
        return
    if others:
        yield warn(
            "serve", f"other users can change serve.keys_file {path}, and so add keys", f"chmod 600 {path}"
        )
    expired = [key.name for key in keys if key.expires <= time.time()]
    valid = len(keys) - len(expired)
    if valid or provider:
        yield ok(
            "serve", f"serve.keys_file {path} has {counted(valid, 'valid key')}{provider and '; ' + provider}"
        )
    else:
        yield warn("serve", f"nobody can sign in: serve.keys_file {path} has no valid key", add)
    if expired:
        names = ", ".join(shortened(printable(name), 64) for name in expired[:_SHOWN])
        more = f" and {len(expired) - _SHOWN} more" if len(expired) > _SHOWN else ""
        yield warn(
            "serve",
            f"serve.keys_file {path} has {counted(len(expired), 'expired key')}: {names}{more}",
            "remove them with `streamguard keys revoke NAME`, and add new ones for those who need them",
        )


def _secret(setting: str, path: Path) -> Finding:
    name = f"serve.{setting} {path}"
    try:
        with path.open("rb") as file:
            start = file.read(max(MADE.values()))
        mode = path.stat().st_mode
    except OSError as error:
        return warn(
            "serve", f"{name} cannot be read: {error.strerror}; `serve` does not start", _readable(path)
        )
    if len(start) < MADE.get(setting, 1):
        return warn("serve", f"{name} is too short; `serve` does not start", _made(setting, path))
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        return warn("serve", f"other users can read or change {name}", f"chmod 640 {path}")
    return ok("serve", f"{name} is readable for this user only, or for its group")


def _made(setting: str, path: Path) -> str:
    return f"openssl rand -out {path} 32" if setting in MADE else f"write the secret into {path}"


def _readable(path: Path) -> str:
    return f"let the user of `serve` read {path}, or correct the setting"
