"""The first lines of Python that a frozen plugin runs: our own modules, without a search for them.

plugins.spec puts two constants above this text and makes one script of it per executable: MODULES,
which says where in the file `modules` of the contents directory each module that the program can
reach lies, and ENTRY, the name of the module to run. The script takes the place of PyInstaller's
own bootstrap, whose archive reader, import hooks and ctypes patches cost more than our whole
program (docs/decisions).

What it knows: that file. What it must not know: anything about CNI, or about the environment (what
the bootloader leaves in it, cni/skel.py takes out again). Rarely used modules of the standard
library lie as ordinary .pyc files in the contents directory; the ordinary importer finds them.

Imports: sys, os, gc, marshal and importlib's frozen half, all in the interpreter already. (Not even
__future__: that is a module too, and the importer for it stands below.)
"""

import gc
import os
import sys
from _frozen_importlib import ModuleSpec
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType

    MODULES: dict[str, tuple[bool, int, int]] = {}  # is a package, offset, size
    ENTRY = ""


class Modules:
    """Importer of MODULES: finder and loader in one, used as a class and never instantiated."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Spec of a module of ours; None for everybody else's."""
        module = MODULES.get(name)
        return None if module is None else ModuleSpec(name, Modules, is_package=module[0])  # type: ignore[arg-type]

    @staticmethod
    def create_module(_spec: ModuleSpec) -> None:
        """Let the import system make an ordinary module object."""

    @staticmethod
    def exec_module(module: "ModuleType") -> None:
        """Run a module's code in its namespace."""
        exec(code_of(module.__name__), module.__dict__)


def code_of(name: str) -> "CodeType":
    """Code of a module of ours."""
    _, offset, size = MODULES[name]
    try:
        return loads(os.pread(FILE, size, offset))  # type: ignore[no-any-return]
    except OSError as error:
        raise ImportError(f"read {name} from the file of modules: {error}", name=name) from error


gc.disable()  # a process of ten milliseconds gives its memory back as a whole
sys.frozen = True  # type: ignore[attr-defined]
sys.meta_path.insert(0, Modules)
# A caller may have closed some of 0, 1 and 2. No file of ours may get such a number: a result would
# be printed into it.
while (spare := os.open("/dev/null", os.O_RDWR)) < 3:
    pass
os.close(spare)
FILE = os.open(f"{sys._MEIPASS}/modules", os.O_RDONLY | os.O_CLOEXEC)  # type: ignore[attr-defined]
exec(code_of(ENTRY))  # ENTRY's code runs here, as __main__
