"""Stands in a chain before a plugin: fails once when told to, and translates versions.

Started as `shim.py REAL CAP FOLDER` in the plugin's place.

A file FOLDER/<name>.<command> makes the next such call fail, and is taken away by it. It says when:
`before` the plugin is called, or `after` it has done its work (whose result is then lost).

CAP is the newest version that REAL supports, or `-`. A newer conf is given to it as of that
version, its result is given back as of the conf's. Between 1.0.0 and 1.1.0 nothing else differs in
a result. Of verbs that CAP does not have yet, nothing is asked, as a plugin without them says.
A program by itself, and without imports that cost time: it runs before every plugin.
"""

import json
import os
import subprocess
import sys

OF_1_1_0 = ("GC", "STATUS")


def fail(text: str) -> None:
    print(json.dumps({"code": 999, "msg": text, "details": ""}))
    sys.exit(1)


def main(real: str, cap: str, folder: str) -> None:
    command = os.environ.get("CNI_COMMAND", "")
    stdin = sys.stdin.buffer.read()
    armed = f"{folder}/{os.path.basename(real)}.{command}"
    when = ""
    if os.path.exists(armed):
        with open(armed, encoding="ascii") as file:
            when = file.read()
        os.unlink(armed)
    if when == "before":
        fail(f"{command} failed once, before anything was done")

    conf = json.loads(stdin)
    version = conf["cniVersion"]
    translated = cap not in {"-", version} and command != "VERSION"
    if translated:
        if command in OF_1_1_0:
            sys.exit(0)
        conf["cniVersion"] = cap
        if "prevResult" in conf:
            conf["prevResult"]["cniVersion"] = cap
        stdin = json.dumps(conf).encode()
    done = subprocess.run([real], input=stdin, stdout=subprocess.PIPE, check=False)
    if when == "after":
        fail(f"{command} failed once, after it was done")
    stdout = done.stdout
    if translated and done.returncode == 0 and stdout:
        stdout = json.dumps({**json.loads(stdout), "cniVersion": version}).encode()
    sys.stdout.buffer.write(stdout)
    sys.stdout.flush()
    sys.exit(done.returncode)


if __name__ == "__main__":
    main(*sys.argv[1:])
