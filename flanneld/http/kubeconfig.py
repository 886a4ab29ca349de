"""A kubeconfig: which server its current context means, and who one is there."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flanneld.http import place
from flanneld.http.credentials import Command, Credentials
from flanneld.http.tls import TLS

if TYPE_CHECKING:
    from flanneld.http.place import Place


class Access(NamedTuple):
    """A server, who one is there, and the proxy on the way."""

    server: Place
    credentials: Credentials
    proxy: Place | None = None


def read(path: str, server: str = "") -> Access:
    """Read a file, YAML or JSON; ``server`` is a URL in the place of its own.

    OSError, ValueError with the name of what is wrong.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        document = json.loads(text)
    except ValueError:
        document = _yaml(text)
    context = _named(document, "contexts", _text(document, "current-context"))
    cluster = _named(document, "clusters", _text(context, "cluster"))
    user = _named(document, "users", _text(context, "user")) if context.get("user") else {}
    folder = Path(path).absolute().parent
    proxy = _text(cluster, "proxy-url")
    found = place.parse(server or _text(cluster, "server"))
    return Access(
        replace(found, name=_text(cluster, "tls-server-name")),
        _credentials(cluster, user, folder),
        place.parse(proxy) if proxy else None,
    )


def _credentials(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> Credentials:
    tls = TLS(
        cafile=_path(cluster, "certificate-authority", folder),
        certfile=_path(user, "client-certificate", folder),
        keyfile=_path(user, "client-key", folder),
        ca=_data(cluster, "certificate-authority-data"),
        cert=_data(user, "client-certificate-data"),
        key=_data(user, "client-key-data"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
    )
    if user.get("exec"):
        return Credentials(tls, command=_command(_object(user, "exec"), cluster, folder))
    if user.get("tokenFile"):  # it wins over token, as in client-go
        return Credentials(tls, file=_path(user, "tokenFile", folder))
    if user.get("username"):
        words = f"{_text(user, 'username')}:{_text(user, 'password')}"
        return Credentials(tls, f"Basic {base64.b64encode(words.encode()).decode()}")
    return Credentials(tls, f"Bearer {_text(user, 'token')}" if user.get("token") else "")


def _command(exec_: dict[str, Any], cluster: dict[str, Any], folder: Path) -> Command:
    program = _text(exec_, "command")
    if not program:
        raise ValueError("exec: it has no command")
    if os.sep in program:
        program = str(folder / program)
    given = {
        "server": cluster.get("server"),
        "tls-server-name": cluster.get("tls-server-name"),
        "insecure-skip-tls-verify": cluster.get("insecure-skip-tls-verify"),
        "certificate-authority-data": cluster.get("certificate-authority-data"),
        "proxy-url": cluster.get("proxy-url"),
    }
    return Command(
        (program, *map(str, exec_.get("args") or ())),
        _text(exec_, "apiVersion"),
        {str(each["name"]): str(each["value"]) for each in exec_.get("env") or ()},
        {k: v for k, v in given.items() if v} if exec_.get("provideClusterInfo") else None,
    )


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"it is neither YAML nor JSON: {error}") from None


def _named(document: Any, kind: str, name: str) -> dict[str, Any]:
    """Give the entry of a list by its name: ``contexts`` hold a ``context`` each, and so on."""
    for entry in document.get(kind) or () if isinstance(document, dict) else ():
        if isinstance(entry, dict) and entry.get("name") == name:
            return _object(entry, kind.removesuffix("s"))
    raise ValueError(f"{kind}: there is none with the name {name!r}")


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise ValueError(f"{key}: {value!r} is not an object")  # noqa: TRY004 - a file's fault
    return value


def _text(document: Any, key: str) -> str:
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, str | None):
        raise ValueError(f"{key}: {value!r} is not a text")  # noqa: TRY004 - a file's fault
    return value or ""


def _path(document: dict[str, Any], key: str, folder: Path) -> str:
    value = _text(document, key)
    return str(folder / value) if value else ""


def _data(document: dict[str, Any], key: str) -> bytes:
    return base64.b64decode(_text(document, key), validate=False)
