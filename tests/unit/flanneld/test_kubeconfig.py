"""Who the daemon is, and where the API server is: kubeconfigs, flags, a pod's environment."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from flanneld import options
from flanneld.flags import UsageError
from flanneld.http import kubeconfig, place
from flanneld.http.items import Items
from flanneld.subnet.kube.access import access, elsewhere

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

YAML = """
apiVersion: v1
kind: Config
current-context: here
clusters:
- name: mine
  cluster:
    server: https://192.0.2.1:6443/base/
    certificate-authority: pki/ca.crt
    tls-server-name: kubernetes.default.svc
    proxy-url: http://proxy:3128
users:
- name: me
  user:
    client-certificate-data: {cert}
    client-key: me.key
contexts:
- name: here
  context: {{cluster: mine, user: me}}
"""


def write(folder: Path, text: str) -> str:
    (folder / "config").write_text(text)
    return str(folder / "config")


def document(user: Mapping[str, object], **cluster: object) -> str:
    told = {"server": "https://api.example:6443", **cluster}
    return json.dumps(
        {
            "current-context": "x",
            "clusters": [{"name": "c", "cluster": told}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        }
    )


def test_a_kubeconfig_of_yaml(tmp_path: Path) -> None:
    cert = base64.b64encode(b"CERT").decode()
    found = kubeconfig.read(write(tmp_path, YAML.format(cert=cert)))
    assert str(found.server) == "https://192.0.2.1:6443/base"
    assert found.server.name == "kubernetes.default.svc"
    assert str(found.proxy) == "http://proxy:3128"
    tls = found.credentials.tls
    assert tls.cafile == str(tmp_path / "pki/ca.crt"), "relative to the file"
    assert (tls.cert, tls.keyfile) == (b"CERT", str(tmp_path / "me.key"))


def authorization(folder: Path, user: Mapping[str, object], **cluster: object) -> str:
    found = kubeconfig.read(write(folder, document(user, **cluster)))
    return asyncio.run(found.credentials.authorization())


def test_tokens(tmp_path: Path) -> None:
    assert authorization(tmp_path, {"token": "t"}) == "Bearer t"
    (tmp_path / "token").write_text("from a file\n")
    both = {"token": "t", "tokenFile": "token"}
    assert authorization(tmp_path, both) == "Bearer from a file", "as in client-go"
    assert authorization(tmp_path, {"username": "a", "password": "b"}) == "Basic YTpi"
    assert authorization(tmp_path, {}) == ""


def test_a_token_file_without_a_token_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="token holds no token"):
        authorization(tmp_path, {"tokenFile": "token"})


PLUGIN = """#!/bin/sh
echo "$KUBERNETES_EXEC_INFO" >> {folder}/asked
echo '{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
  "status": {{"token": "'"$1$SUFFIX"'", "expirationTimestamp": "{until}"}}}}'
"""


@pytest.mark.parametrize(
    ("until", "calls"), [("2999-01-01T00:00:00Z", 1), ("2001-01-01T00:00:00Z", 2)]
)
def test_a_program_gives_credentials(tmp_path: Path, until: str, calls: int) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(PLUGIN.format(folder=tmp_path, until=until))
    plugin.chmod(0o755)
    command = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "./plugin",
        "args": ["to"],
        "env": [{"name": "SUFFIX", "value": "ken"}],
        "provideClusterInfo": True,
    }
    found = kubeconfig.read(write(tmp_path, document({"exec": command}))).credentials

    async def twice() -> list[str]:
        return [await found.authorization(), await found.authorization()]

    assert asyncio.run(twice()) == ["Bearer token"] * 2
    asked = [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]
    assert len(asked) == calls, "again when it is over"
    assert asked[0]["spec"]["cluster"]["server"] == "https://api.example:6443"


def test_a_program_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="false has ended with status 1"):
        authorization(tmp_path, {"exec": {"command": "false", "apiVersion": "v1"}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "neither YAML nor JSON"),
        ("[]", "contexts: there is none with the name ''"),
        ('{"current-context": "x"}', "contexts: there is none with the name 'x'"),
        (document({}, server="ftp://x"), "http:// or https://"),
        (document({}, server=1), "server: 1 is not a text"),
    ],
)
def test_what_is_wrong_with_a_kubeconfig_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kubeconfig.read(write(tmp_path, text))


@pytest.mark.parametrize(
    ("url", "spelled"),
    [
        ("https://a", "https://a:443"),
        ("http://10.0.0.1/", "http://10.0.0.1:80"),
        ("https://[fd00::1]:6443", "https://[fd00::1]:6443"),
    ],
)
def test_urls(url: str, spelled: str) -> None:
    assert str(place.parse(url)) == spelled


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("a:1", "begin with http"),
        ("https://", "like https://HOST:PORT"),
        ("https://a:x", "Port could not be cast"),
        ("https://a:0", "0 is no port"),
        ("https://a?b=c", "like https://HOST:PORT"),
    ],
)
def test_other_urls_are_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        place.parse(url)


def test_a_pod_finds_its_server(tmp_path: Path) -> None:
    wanted = options.read(["--kube-subnet-mgr"], {})
    environ = {"KUBERNETES_SERVICE_HOST": "fd00:96::1", "KUBERNETES_SERVICE_PORT": "443"}
    found = access(wanted, environ, str(tmp_path))
    assert str(found.server) == "https://[fd00:96::1]:443"
    assert found.credentials.tls.cafile == f"{tmp_path}/ca.crt"
    (one,) = elsewhere(found.server, [("192.0.2.7", 6443)])
    assert (one.host, one.port, one.name) == ("192.0.2.7", 6443, "fd00:96::1")
    with pytest.raises(UsageError, match="--kubeconfig-file or --kube-api-url"):
        access(wanted, os.environ.copy() | {"KUBERNETES_SERVICE_HOST": ""}, str(tmp_path))


def test_the_url_of_the_flag_comes_first(tmp_path: Path) -> None:
    config = write(tmp_path, document({"token": "t"}))
    flags = ["--kube-subnet-mgr", "--kubeconfig-file", config, "--kube-api-url", "https://other:1"]
    assert str(access(options.read(flags, {}), {}).server) == "https://other:1"


PAGES: list[Any] = [
    {
        "kind": "NodeList",
        "metadata": {"continue": "x"},
        "items": [{"a": "]}\u00e4,"}, {"b": [1, {}]}],
    },
    {"metadata": {"resourceVersion": "7"}, "items": []},
]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_list_is_read_in_pieces(size: int) -> None:
    items, found, tokens = Items(), list[Any](), list[str]()
    for page in PAGES:
        body = json.dumps(page, ensure_ascii=False).encode()
        for at in range(0, len(body), size):
            found += items.feed(body[at : at + size])
        tokens.append(items.end())
    assert found == PAGES[0]["items"]
    assert tokens == ["x", ""]
    assert items.metadata == {"resourceVersion": "7"}


def test_a_list_that_breaks_off_is_none() -> None:
    items = Items()
    assert list(items.feed(b'{"metadata": {}, "items": [{"a": 1}, {"b"')) == [{"a": 1}]
    with pytest.raises(ValueError, match="not whole"):
        items.end()
