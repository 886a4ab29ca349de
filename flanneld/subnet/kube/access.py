"""Where the API server is, and who this daemon is there: by flags, a kubeconfig, or as a pod."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flanneld.flags import UsageError
from flanneld.http import kubeconfig, place
from flanneld.http.credentials import Credentials
from flanneld.http.kubeconfig import Access
from flanneld.http.tls import TLS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld.http.place import Place
    from flanneld.options import Options

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_HOST, _PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"


def access(options: Options, environ: Mapping[str, str], account: str = _ACCOUNT) -> Access:
    """Find out; UsageError.  ``account`` is the folder with a pod's token."""
    url, file = options.kube_api_url, options.kubeconfig_file
    if file:
        try:
            return kubeconfig.read(file, url)
        except (OSError, ValueError) as error:
            raise UsageError(f'invalid value "{file}" for flag -kubeconfig-file: {error}') from None
    if url:
        try:
            return Access(place.parse(url), Credentials())
        except ValueError as error:
            raise UsageError(f'invalid value "{url}" for flag -kube-api-url: {error}') from None
    host, port = environ.get(_HOST, ""), environ.get(_PORT, "")
    if not (host and port):
        raise UsageError(
            "where is the Kubernetes API server? Name it with --kubeconfig-file or --kube-api-url;"
            f" in a pod {_HOST} and {_PORT} do"
        )
    try:
        server = place.parse(
            f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        )
    except ValueError as error:
        raise UsageError(f"{_HOST}={host} and {_PORT}={port}: {error}") from None
    tls = TLS(cafile=f"{account}/ca.crt")
    return Access(server, Credentials(tls, file=f"{account}/token"))


def elsewhere(server: Place, addresses: list[tuple[str, int]]) -> list[Place]:
    """Give the places of API servers that are known by address.

    Their certificate has the name by which this one is known.
    """
    if server.base:  # something else stands in front of them
        return []
    name = server.name or server.host
    return [replace(server, host=host, port=port, name=name) for host, port in addresses]
