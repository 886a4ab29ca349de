"""deploy/kube-flannel.yml: stock's names, and rights for what the daemon asks for and no more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from flanneld import options
from flanneld.http.items import Items
from flanneld.subnet.kube import netconf
from flanneld.subnet.kube.api import Api
from flanneld.subnet.manager import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flanneld.http.client import Client
    from flanneld.http.connection import Request

ROOT = Path(__file__).resolve().parents[3]
OBJECTS = {
    (each["kind"], each["metadata"]["name"]): each
    for each in yaml.safe_load_all((ROOT / "deploy/kube-flannel.yml").read_text())
}
DAEMONSET = OBJECTS["DaemonSet", "kube-flannel-ds"]
POD = DAEMONSET["spec"]["template"]["spec"]
(DAEMON,) = POD["containers"]
CONFIGURATION = OBJECTS["ConfigMap", "kube-flannel-cfg"]["data"]
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch"}

Right = tuple[str, str, str, str]  # the group, the resource, the verb, and of what object alone


class Asked:
    """A client that answers nothing, and keeps what it was asked."""

    def __init__(self) -> None:
        self.rights: set[Right] = set()

    async def call(self, request: Request) -> dict[str, Any]:
        self._keep(request)
        raise StoreError("nothing is answered")

    @contextlib.asynccontextmanager
    async def answer(self, request: Request, _silence_s: float = 0.0) -> AsyncIterator[Any]:
        yield await self.call(request)

    def _keep(self, request: Request) -> None:
        path, _, query = request.target.partition("?")
        words = path.strip("/").split("/")
        group = words[1] if words[0] == "apis" else ""
        rest = words[3:] if group else words[2:]
        if rest[0] == "namespaces":
            rest = rest[2:]
        resource, name = rest[0], "".join(rest[1:2])
        if rest[2:]:
            resource, name = f"{resource}/{rest[2]}", ""
        verb = _VERBS[request.method]
        if verb == "get" and not name:
            verb = "watch" if "watch=" in query else "list"
        self.rights.add((group, resource, verb, name))


async def asked() -> set[Right]:
    client = Asked()
    api = Api(cast("Client", client))
    calls = [api.node("n"), api.patch("n", {}), api.tell({}), api.servers()]
    for call in calls:
        with contextlib.suppress(StoreError):
            await call
    for stream in (api.list(Items(), "n"), api.watch("1", "n")):
        with contextlib.suppress(StoreError):
            async for _ in stream:
                pass
    return client.rights


def test_the_rights_are_those_that_the_daemon_uses() -> None:
    granted = {
        (group, resource, verb, name)
        for rule in OBJECTS["ClusterRole", "flannel"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }
    assert granted - {("", "nodes", "get", "")} == asyncio.run(asked())


def test_it_takes_the_place_of_gos() -> None:
    assert set(OBJECTS) == {
        ("Namespace", "kube-flannel"),
        ("ServiceAccount", "flannel"),
        ("ClusterRole", "flannel"),
        ("ClusterRoleBinding", "flannel"),
        ("ConfigMap", "kube-flannel-cfg"),
        ("DaemonSet", "kube-flannel-ds"),
    }
    labels = OBJECTS["Namespace", "kube-flannel"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
    assert DAEMONSET["spec"]["selector"] == {"matchLabels": {"app": "flannel"}}, "it is immutable"
    assert DAEMONSET["spec"]["template"]["metadata"]["labels"] == {"tier": "node", "app": "flannel"}
    assert [each["name"] for each in POD["initContainers"]] == ["install-cni-plugin"]
    assert DAEMON["name"] == "kube-flannel"
    assert POD["hostNetwork"] is True
    assert POD["priorityClassName"] == "system-node-critical"
    assert set(CONFIGURATION) == {"cni-conf.json", "net-conf.json"}


def test_the_daemon_takes_its_flags() -> None:
    wanted = options.read(DAEMON["args"], {})
    assert (wanted.subnet_mgr, wanted.ip_masq, wanted.healthz_port) == ("kube", True, 8081)
    assert DAEMON["ports"] == [{"name": "healthz", "containerPort": 8081}]
    assert wanted.cni_conflist == "/etc/cni/net.d/10-flannel.conflist"
    mounts = {each["mountPath"].rstrip("/") for each in DAEMON["volumeMounts"]}
    for file in (wanted.subnet_file, wanted.cni_conflist, wanted.cni_conflist_from):
        assert str(Path(file).parent) in mounts
    assert {wanted.data_dir, "/run/xtables.lock"} <= mounts


def test_the_configuration_is_stocks() -> None:
    conf = netconf.parse(CONFIGURATION["net-conf.json"])
    assert (str(conf.network), conf.backend_type) == ("10.244.0.0/16", "vxlan")
    conflist = json.loads(CONFIGURATION["cni-conf.json"])
    assert (conflist["name"], conflist["cniVersion"]) == ("cbr0", "0.3.1")
    assert [each["type"] for each in conflist["plugins"]] == ["flannel", "portmap"]


def test_no_container_has_more_than_it_needs() -> None:
    for container in (*POD["initContainers"], DAEMON):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"]["drop"] == ["ALL"]
    assert DAEMON["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "NET_RAW"]


def test_the_image_is_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {each["image"] for each in (*POD["initContainers"], DAEMON)}
    assert images == {f"localhost/cni-flannel:{version}"}
