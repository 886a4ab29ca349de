"""The binary `host-local`."""

from cni import skel
from ipam import plugin

if __name__ == "__main__":
    skel.run(plugin, "CNI host-local plugin")
