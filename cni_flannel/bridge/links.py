"""Finding the links of an attachment, and telling what is provably ours.

A host veth is ours if its alias spells the attachment out.  What the Go plugin made has no
alias: there the pod's end proves it, if it is a veth whose peer is a port of our bridge, or bears
a name such as the Go plugin gives.  Everything else is a stranger's and is left alone.
Imports: ``netlink``, the protocol package.
"""

from __future__ import annotations

from zlib import crc32

from cni import attachment as identity
from cni import errors
from cni.cidr import Prefix
from cni.errors import AlreadyAttached, CNIError
from netlink import rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.attachment import Attachment
    from cni.cidr import Address
    from cni_flannel.bridge.ends import Ends
    from netlink.handle import Handle
    from netlink.link import Link
    from netlink.nlmsg import Message

POD_ROUTE = 245  # the routing protocol of a route to a pod; flanneld's are 244
_HEX = "0123456789abcdef"


def find(host: Handle, attachment: Attachment) -> tuple[Link | None, str]:
    """The attachment's host veth if it is there, and the name it has or should get.

    A name that a stranger's link bears is passed over for the next one of the attachment.
    """
    for n in range(identity.HOST_VETH_NAMES):
        name = attachment.host_veth_name(n)
        link = host.get_link(name)
        if link is None or attachment.owns(link.alias):
            return link, name
    raise CNIError(
        errors.KERNEL_REFUSED,
        f"find a free name for the host veth of {attachment.alias()}: all "
        f"{identity.HOST_VETH_NAMES}, {attachment.host_veth_name()} and so on, are taken by links "
        "that are not ours",
        "remove these links, or use another container ID",
    )


def make_room(ends: Ends, attachment: Attachment, own_mac: str = "") -> tuple[str, bool]:
    """Name the host veth of a new attachment, after clearing what a killed ADD left of it.

    A complete one with ``own_mac`` is this call's own too, whose answer never reached the caller.
    Returns the name and whether something was cleared.  AlreadyAttached (4) if the attachment is
    complete; CNIError 4 if the pod's interface exists and is not what a killed ADD left; 11 if an
    ADD into another namespace may be at work.
    """
    host_link, name = find(ends.host, attachment)
    is_begun = host_link is not None and host_link.alias == attachment.alias(adding=True)
    if host_link is not None and (is_begun or host_link.mac == own_mac):
        if host_link.link_netnsid != ends.host.nsid(ends.netns_fd):
            raise CNIError(
                errors.TRY_AGAIN_LATER,
                f"host veth {name} of {attachment.alias()} leads into another network namespace",
                "another ADD of the attachment is at work there, or was killed: DEL removes it",
            )
        ends.drop(rtnl.del_link(host_link.index))
        return name, True
    pod_link = ends.pod.get_link(attachment.ifname)
    if host_link is None and pod_link is None:
        return name, False
    message = f'container veth name ("{attachment.ifname}") peer provided ("{name}") already exists'
    if host_link is not None:
        raise AlreadyAttached(
            errors.INVALID_ENVIRONMENT,
            message,
            f"container {attachment.container_id} is attached to network {attachment.network} "
            f"already ({attachment.ifname}, host veth {name}): DEL comes before a second ADD",
        )
    raise CNIError(
        errors.INVALID_ENVIRONMENT,
        message,
        f"the network namespace has an interface {attachment.ifname} that this plugin did not "
        "make: choose another CNI_IFNAME, or remove it",
    )


def peer_on_host(ends: Ends, pod_link: Link) -> Link | None:
    """The host's end of a pod's veth; None if the pair is of another kind or leads elsewhere.

    Indexes repeat between namespaces (a pod's eth0 is mostly 2), so the namespace counts too.
    """
    if pod_link.kind != "veth":
        return None
    peer = ends.host.get_link(pod_link.link)
    if peer is None or not rtnl.paired(peer, pod_link):
        return None
    return peer if peer.link_netnsid == ends.host.nsid(ends.netns_fd) else None


def of_reference_plugin(ends: Ends, attachment: Attachment, bridge: str) -> Link | None:
    """The pod's end of a veth pair that the Go plugin made, if that can be proven.

    A path of a namespace may lead to another pod by now (process numbers are used again): the
    alias of that pod's link says so.
    """
    pod_link = ends.pod.get_link(attachment.ifname) if ends.has_pod else None
    peer = None if pod_link is None else peer_on_host(ends, pod_link)
    if peer is None or (peer.alias and not attachment.owns(peer.alias)):
        return None
    master = ends.host.get_link(bridge)
    is_port = master is not None and peer.master == master.index
    is_orphan = peer.master == 0 and peer.is_up and looks_like_reference_name(peer.name)
    return pod_link if is_port or is_orphan else None


def gateway_port_name(holder: str) -> str:
    """The bridge's end of the pair whose other end is the VLAN's gateway ``holder``."""
    return f"veth{crc32(holder.encode()):08x}"


def is_of_pod(port: Link) -> bool:
    """Whether a port of a bridge is provably a pod's, made by us or by the Go plugin.

    In a node that is a container itself the uplink is one end of a veth pair, too.
    """
    if identity.is_ours(port.alias):
        return True
    is_pair = port.kind == "veth" and port.link_netnsid is not None and not port.alias
    return is_pair and looks_like_reference_name(port.name)


def looks_like_reference_name(name: str) -> bool:
    """Whether a link is called "veth" and 8 hexadecimal digits."""
    return len(name) == 12 and name.startswith("veth") and all(c in _HEX for c in name[4:])


def no_route(address: Address) -> Message:
    """Take away the host's route to a pod, which is there if its gateway is in another subnet."""
    return rtnl.del_route(0, Prefix(address, address.bits), protocol=POD_ROUTE)


def stale(host: Handle, network: str, valid: set[tuple[str, str]]) -> list[Link]:
    """Host veths of attachments of ``network`` that are not among ``valid``."""
    living = {identity.Attachment(network, *one).alias() for one in valid}
    return [
        link
        for link in host.links(kind="veth")
        if identity.is_of_network(link.alias, network)
        and identity.without_mark(link.alias) not in living
    ]


def has_sibling(host: Handle, attachment: Attachment) -> bool:
    """Whether the container has another interface on the same network."""
    return any(attachment.is_sibling(link.alias) for link in host.links(kind="veth"))
