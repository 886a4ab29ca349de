"""Objects that tests apply: pods that serve pages, and services in front of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.kube.images import BUSYBOX

if TYPE_CHECKING:
    from tests.kube.kubectl import Document

PORT = 8080
MEGABYTE = 1_000_000
_SERVE = f"""
mkdir -p /page
hostname >/page/name
busybox head -c {MEGABYTE} /dev/zero >/page/megabyte
exec httpd -f -p {PORT} -h /page
"""


def web(name: str, node: str, *, host_port: int = 0, **spec: Any) -> Document:
    """Give a pod that serves /name, its name, and /megabyte; ``spec`` adds to its specification."""
    port = {"containerPort": PORT} | ({"hostPort": host_port} if host_port else {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web", "name": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "web",
                    "image": BUSYBOX,
                    "command": ["sh", "-c", _SERVE],
                    "ports": [port],
                    "readinessProbe": {
                        "httpGet": {"path": "/megabyte", "port": PORT},
                        "periodSeconds": 1,
                    },
                }
            ],
            **spec,
        },
    }


def service(name: str, **labels: str) -> Document:
    """Give a Service on port 80 for the pods with all these labels."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": PORT}]},
    }
