# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""This collection's own code as one file: what a module leaves behind, because its files are gone once it ends."""

import importlib.util
import io
import marshal
import struct
import sys
import time
import zipfile
from typing import Any, List

from ansible_collections.sesame.portknock.plugins.module_utils._change.compiled import compiled
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError

_PACKAGE = __name__.rsplit(".", 2)[0]
_COMMAND = "._command."
_WRITTEN = 10**9
"""Any even time will do: a .pyc file counts where it names the time and size of its source."""
_FLAGS = bytes(4) if sys.version_info >= (3, 7) else b""
"""In a .pyc file behind its magic number, since PEP 552."""
_MAIN = "import sys\nfrom {0} import main\nsys.exit(main(sys.argv[1:]))\n"


def archive(program: str, first_lines: str = "", small: bool = False) -> bytes:
    """Return our module_utils, as far as they are loaded, as a zip file that Python runs.

    :param program: the name of the module whose main() it calls.
    :param first_lines: what stands in front of it.
    :param small: whether to compress it, which takes a while.
    :raises HostError: if the source of one cannot be read.
    """
    stream = io.BytesIO(first_lines.encode())
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED) as made:
        names = sorted(name for name in sys.modules if _is_needed(name, program))
        for package in _packages(names):
            made.writestr(package.replace(".", "/") + "/__init__.py", "")
        for name in names:
            path, source = name.replace(".", "/") + ".py", _source(name).encode("utf-8")
            info = zipfile.ZipInfo(path, time.localtime(_WRITTEN)[:6])
            info.compress_type = made.compression
            made.writestr(info, source)
            # Compiled once here instead of at each use, of which one has the controller waiting. Another Python,
            # after an upgrade, reads the source.
            code = marshal.dumps(compiled(name) or compile(source, path, "exec"))
            header = importlib.util.MAGIC_NUMBER + _FLAGS + struct.pack("<II", _WRITTEN, len(source))
            made.writestr(path + "c", header + code)
        made.writestr("__main__.py", _MAIN.format(program))
    return stream.getvalue()


def _is_needed(name: str, program: str) -> bool:
    """Return whether a module is a file of ours, and not one of the host's command alone where another program is made."""
    return (
        name.startswith(_PACKAGE + "._")
        and _is_file(name)
        and (_COMMAND in program or not name.startswith(_PACKAGE + _COMMAND))
    )


def _is_file(name: str) -> bool:
    """Return whether a module is a file: a package of ours has none."""
    return not hasattr(sys.modules[name], "__path__")


def _packages(names: List[str]) -> List[str]:
    """Return the packages that modules lie in, as names."""
    return sorted({name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)})


def _source(name: str) -> str:
    """Return the source of a module of ours, which may come from a zip file itself."""
    spec = importlib.util.find_spec(name)
    # Every loader that Python has for files and zip files can give the source.
    loader: Any = spec.loader if spec else None
    text = loader.get_source(name) if loader else None
    if text is None:
        raise HostError(f"the source of {name} cannot be read, so nothing can be armed to undo the change.")
    return text


__all__ = ("archive",)
