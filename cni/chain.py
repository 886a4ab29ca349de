"""Results along a chain of plugins (spec sections 2 and 5).

Pure. Imported only for a plugin that is not the first of its chain.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def appended(result: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plugin's own result and what the plugins before it had, both of the inner shape.

    The plugin's own interfaces come first: plugins after it look for them by their place. Routes
    that both have are there once; the plugin's own DNS counts if it has any.
    """
    interfaces = list(result.get("interfaces") or [])
    ips = list(result.get("ips") or [])
    for ip in earlier.get("ips") or []:
        index = ip.get("interface")
        moved = {} if index is None else {"interface": index + len(interfaces)}
        ips.append({**ip, **moved})
    routes = list(result.get("routes") or [])
    routes += [route for route in earlier.get("routes") or [] if route not in routes]
    return {
        **result,
        "interfaces": [*interfaces, *(earlier.get("interfaces") or [])],
        "ips": ips,
        "routes": routes,
        "dns": result.get("dns") or earlier.get("dns") or {},
    }
