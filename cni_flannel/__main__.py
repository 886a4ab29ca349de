"""The executable: the plugin whose name it is called by, ``flannel`` or ``bridge``."""

from __future__ import annotations

import sys

from cni import skel


def main() -> None:
    """Run one call and leave the process, or stay and serve many."""
    if sys.argv[1:2] == ["serve"]:
        from cni_flannel.resident import serve  # the one process that stays

        serve.main(sys.argv[2:])
    if sys.argv[0].rsplit("/", 1)[-1] == "bridge":
        from cni_flannel.bridge import plugin  # one of the two is needed, never both
    else:
        from cni_flannel import plugin  # type: ignore[no-redef]
    skel.run(plugin, plugin.ABOUT)


if __name__ == "__main__":
    main()
