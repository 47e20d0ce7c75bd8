# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Python imports this when it starts, where this folder is on PYTHONPATH: what comes from a zip file is compiled once.

Ansible sends a module as a zip file, and Python compiles all that is imported from one, in each run anew. On the hosts of
the tests, to which the same files are sent hundreds of times, that took a third of a run. The code is kept by the text that
it was compiled from, so nothing else is run than what was sent. Older Pythons, whose zipimport cannot be reached into, and
a Python that is started without its environment (-I: the guard's program) do without.
"""

import hashlib
import importlib.util
import marshal
import os
import zipimport
from types import CodeType

_KEPT = os.environ.get("WIRE_COMPILED", "")
_compile = getattr(zipimport, "_compile_source", None)


def _compile_once(pathname: str, source: bytes) -> CodeType:
    """Return the code of a file in a zip file."""
    key = hashlib.sha256(importlib.util.MAGIC_NUMBER + source).hexdigest()
    # Where it lies in the zip file is part of its name: the folder is one of this run alone.
    name = os.path.join(_KEPT, f"{os.path.basename(pathname)}-{key[:32]}")
    try:
        with open(name, "rb") as handle:
            code = marshal.loads(handle.read())
        # Messages name the file of this run.
        __import__("_imp")._fix_co_filename(code, pathname)
    except OSError:
        code = _compile(pathname, source)
        _keep(name, marshal.dumps(code))
    return code


def _keep(name: str, data: bytes) -> None:
    """Write a file that is there whole or not at all; a disk may be full or read-only, as tests make it."""
    unfinished = f"{name}.{os.getpid()}"
    try:
        with open(unfinished, "wb") as handle:
            handle.write(data)
        os.replace(unfinished, name)
    except OSError:
        pass


if _compile and os.path.isdir(_KEPT):
    zipimport._compile_source = _compile_once
