"""What a case takes for granted is made: files, pods, links, plugins that others call.

`given`:
  subnet_env   keys of the daemon's file to change ({subnet = "10.9.1.1/24"}; false: no file); a
               string is the file's whole text. Written for flannel, or when it is named.
  files        path -> text, or {hex}, {size}, {dir = true}, {link}, {mode} ...
  run          shell lines, in the world
  pods         names of network namespaces; the default is ["a"]
  plugins      name -> shell script, put before everything else in CNI_PATH
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conformance.case import Instance
    from conformance.world import World

FOLDER = "/run/given"


def raw_bytes(parts: Any) -> bytes:
    """Put stdin together: text, or a list of text, [text, times] and {hex = ".."}."""
    if isinstance(parts, str):
        return parts.encode()
    found = b""
    for part in parts:
        if isinstance(part, dict):
            found += bytes.fromhex(part["hex"])
        elif isinstance(part, list):
            found += part[0].encode() * part[1]
        else:
            found += part.encode()
    return found


def make_given(world: World, instance: Instance) -> None:
    """Make what a case takes for granted."""
    given = instance.case.given
    for pod in given.get("pods", ["a"]):
        world.add_pod(pod)
    subnet_env = given.get("subnet_env", {} if instance.plugin == "flannel" else False)
    if isinstance(subnet_env, str):
        world.write("/run/flannel/subnet.env", subnet_env)
    elif subnet_env is not False:
        values: dict[str, Any] = {
            key: None if text == "absent" else text for key, text in subnet_env.items()
        }
        world.write_subnet_env(**values)
    for path, content in given.get("files", {}).items():
        make_file(world, path, content)
    for name, script in given.get("plugins", {}).items():
        path = world.write(f"{FOLDER}/{name}", f"#!/bin/sh\n{script}\n")
        world.path(path).chmod(0o755)
        if not world.cni_path.startswith(FOLDER):
            world.cni_path = f"{FOLDER}:{world.cni_path}"
    for line in given.get("run", []):
        world.run(["sh", "-ec", line])


def make_file(world: World, path: str, content: Any) -> None:
    """Make a file: text, or a table of hex, size, dir, link; `mode` is octal text."""
    if isinstance(content, str):
        world.write(path, content)
        return
    target = world.path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if content.get("dir"):
        target.mkdir(exist_ok=True)
    elif "link" in content:
        target.symlink_to(content["link"])
    else:
        data = content.get("text", "").encode() + bytes.fromhex(content.get("hex", ""))
        world.write(path, data + bytes(content.get("size", 0)))
    if "mode" in content:
        target.chmod(int(content["mode"], 8))
