# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Python imports this when it starts, where this folder is on PYTHONPATH: what comes from a zip file is compiled once.

Ansible sends a module as a zip file, and Python compiles all that is imported from one, in each run anew. On the hosts of
the tests, to which the same files are sent hundreds of times, that took a third of a run. The code is kept by the text that
it was compiled from, so nothing else is run than what was sent. A Python that is started without its environment (-I: the
guard's program) does without.
"""

import builtins
import hashlib
import importlib.util
import marshal
import os
from typing import Any

_KEPT = os.environ.get("WIRE_COMPILED", "")
_compile = builtins.compile


def _compile_once(source: Any, filename: Any, mode: str, *more: Any, **options: Any) -> Any:
    """Return the code of a file in a zip file, and of anything else what compile() does."""
    is_in_zip = isinstance(filename, str) and ".zip/" in filename and mode == "exec" and isinstance(source, bytes)
    if not is_in_zip or more or options != {"dont_inherit": True}:
        return _compile(source, filename, mode, *more, **options)
    key = hashlib.sha256(importlib.util.MAGIC_NUMBER + source).hexdigest()
    # The zip file has another name in each run, and messages name that of this one.
    name = os.path.join(_KEPT, f"{os.path.basename(filename)}-{key[:32]}")
    try:
        with open(name, "rb") as handle:
            code = marshal.loads(handle.read())
        __import__("_imp")._fix_co_filename(code, filename)
    except OSError:
        code = _compile(source, filename, mode, dont_inherit=True)
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


if os.path.isdir(_KEPT):
    builtins.compile = _compile_once
