"""Why an etcd cannot be used, in sentences: what the libraries say is for those who know them.

Pure.  The patterns are words of gRPC's, BoringSSL's and etcd's own errors, which have no codes for
most of it: the first that is found counts.  What none of them is in stays as it is, cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from flanneld.plain import plain

_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Cause:
    """A sentence; ``refused``: the server did answer."""

    text: str
    refused: bool = False


_KNOWN = {
    "CERTIFICATE_VERIFY_FAILED: certificate has expired": Cause(
        "its certificate has expired", refused=True
    ),
    "CERTIFICATE_VERIFY_FAILED: certificate is not yet valid": Cause(
        "its certificate is not valid yet: is the clock of this node right?", refused=True
    ),
    "CERTIFICATE_VERIFY_FAILED": Cause(
        "its certificate is of no authority in --etcd-cafile", refused=True
    ),
    "Hostname Verification Check failed": Cause(
        "its certificate is not for this name: name it as the certificate does", refused=True
    ),
    "Failed to create security handshaker": Cause(
        "the TLS files cannot be used: --etcd-cafile and --etcd-certfile are certificates (PEM),"
        " and --etcd-keyfile is the latter's key"
    ),
    "TSI_DATA_CORRUPTED": Cause(
        "it refuses this client's certificate, or wants one: --etcd-certfile and --etcd-keyfile, of"
        " an authority that it trusts",
        refused=True,
    ),
    "Handshake read failed": Cause("it does not speak TLS: is it http://?", refused=True),
    "authentication failed": Cause(
        "it refuses the user or the password (authentication failed): --etcd-username,"
        " --etcd-password",
        refused=True,
    ),
    "user name is empty": Cause(
        "it wants a user: --etcd-username and --etcd-password", refused=True
    ),
    "authentication is not enabled": Cause(
        "it knows no users: leave --etcd-username and --etcd-password out", refused=True
    ),
    "permission denied": Cause(
        "the user may not do that (permission denied): it needs to read and write below"
        " --etcd-prefix",
        refused=True,
    ),
    "database space exceeded": Cause(
        "its database is full: etcdctl alarm list, then compact and defragment it", refused=True
    ),
    "no leader": Cause("its cluster has no leader at present"),
    "Domain name not found": Cause("its name has no address: DNS, or /etc/hosts"),
    "hostname lookup error": Cause("its name cannot be looked up: DNS, or /etc/hosts"),
    "Connection refused": Cause("nothing listens there (connection refused)"),
    "No route to host": Cause("the host is not reached (no route to host)"),
    "Network is unreachable": Cause("the host is not reached (network is unreachable)"),
    "Connection timed out": Cause("the host is not reached (connection timed out)"),
    "Connection reset": Cause("it broke the connection off (reset)"),
    "Socket closed": Cause("it closed the connection; if it always does: is it https://?"),
}


def cause(said: str) -> Cause:
    """Find the sentence for what a library said."""
    found = (known for words, known in _KNOWN.items() if words in said)
    return next(found, Cause(plain(said[:_LONGEST])))


def listed(causes: dict[str, Cause]) -> str:
    """Say why each endpoint cannot be used."""
    refused = any(one.refused for one in causes.values())
    each = "; ".join(f"{endpoint}: {one.text}" for endpoint, one in causes.items())
    return f"etcd {'refuses' if refused else 'does not answer'}: {each}"
