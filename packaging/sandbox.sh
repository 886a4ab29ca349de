#!/usr/bin/env bash
# A shell on a private node: network and mounts of its own, empty /run and /var/lib, two pods without a network.
#
#   sandbox.sh [COMMAND [ARGUMENT...]]      COMMAND: bash
#
# Nothing that is done in it reaches the real node, and all of it ends with it.
set -euo pipefail
here=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd -P)

if [[ ${1:-} != --inside ]]; then
    user=()
    [[ $EUID -eq 0 ]] || user=(--user --map-root-user)
    exec unshare "${user[@]}" --net --mount --propagation private "$here/packaging/sandbox.sh" --inside "$@"
fi
shift

# The mounts below are for nobody else to see. Who may not look at the caller's namespaces cannot mount in them.
for kind in mnt net; do
    if [[ $(readlink "/proc/self/ns/$kind") == "$(readlink "/proc/$PPID/ns/$kind" || true)" ]]; then
        printf 'sandbox: this is not a private node: call ./build.sh sandbox\n' >&2
        exit 1
    fi
done

for folder in /run /var/lib; do
    mount -t tmpfs -o mode=755 sandbox "$folder"
done
mkdir -p /run/flannel /run/net.d
ip link set lo up
for pod in blue green; do
    ip netns add "$pod"
done
cat >/run/flannel/subnet.env <<'END'
FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
END
cat >/run/conf <<'END'
{"cniVersion": "1.1.0", "name": "cbr0", "type": "flannel",
 "delegate": {"hairpinMode": true, "isDefaultGateway": true}}
END
cat >/run/net.d/10-flannel.conflist <<'END'
{
  "name": "cbr0",
  "cniVersion": "1.0.0",
  "plugins": [
    {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
END
cat >/run/bashrc <<'END'
PS1='(sandbox) \w\$ '
END

export PATH=$here/dist/cni-flannel:$here/dist/flanneld:${PATH:-/bin}:/usr/sbin:/sbin
export CONF=/run/conf RESULT=/run/result CNI_PATH=$here/dist/cni-flannel:/usr/lib/cni NETCONFPATH=/run/net.d
export CNI_CONTAINERID=blue CNI_NETNS=/run/netns/blue CNI_IFNAME=eth0
if [[ $# -gt 0 ]]; then
    exec "$@"
fi
if [[ -t 0 ]]; then
    cat >&2 <<'END'
A private node. /run/flannel/subnet.env is written; the pods blue and green have no network yet; the conf is in $CONF.

    CNI_COMMAND=ADD flannel <$CONF | tee $RESULT        # attach blue
    CNI_COMMAND=DEL flannel <$CONF                      # detach it
    exit                                                # all of it is gone

END
fi
exec bash --rcfile /run/bashrc
