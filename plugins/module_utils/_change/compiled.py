# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Has what is imported from a module's zip file compiled once, and keeps what was compiled for the guard's program.

For each import from a zip file, zipimport compiles the source to learn the file's name, and again to run it; and it keeps what
came of running it alone, so that the program that undoes a change, which is made of the same files, had to be compiled once more.
That is most of what a small change takes.
"""

import sys
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any, Dict, Optional

_CODE: Dict[str, CodeType] = {}


def keep_compiled() -> None:
    """From now on, compile once what is imported from the zip file that this file comes from, and keep the code; else do nothing."""
    loader = globals().get("__loader__")
    if hasattr(loader, "archive") and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(loader))


def compiled(name: str) -> Optional[CodeType]:
    """Return the code of a module that was imported since keep_compiled(), or None."""
    return _CODE.get(name)


class _Finder:
    """Finds modules in a zip file."""

    def __init__(self, loader: Any) -> None:
        """Take its zipimporter."""
        self._loader = loader

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> Optional[ModuleSpec]:
        """Return the spec of a module in the zip file, None for any other and for packages (importlib.abc)."""
        path = name.replace(".", "/") + ".py"
        try:
            source = self._loader.get_data(path)
        except OSError:
            return None
        loader: Any = _Loader(self._loader.archive, path, source)
        spec = ModuleSpec(name, loader, origin=f"{self._loader.archive}/{path}")
        spec.has_location = True
        return spec


class _Loader:
    """Runs a module as zipimport would, and keeps its code."""

    def __init__(self, archive: str, path: str, source: bytes) -> None:
        """Take the path of a zip file, a path in it, and what is there."""
        self.archive = archive
        self._file, self._text = f"{archive}/{path}", source

    def get_source(self, _name: str) -> str:
        """Return the source (importlib.abc)."""
        return self._text.decode()

    def create_module(self, _spec: ModuleSpec) -> None:
        """Have Python make the module (importlib.abc)."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code (importlib.abc)."""
        code = compile(self._text, self._file, "exec", dont_inherit=True)
        _CODE[module.__name__] = code
        exec(code, module.__dict__)


__all__ = ("compiled", "keep_compiled")
