# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps what Python compiles when a module of this collection is imported, so that the guard's program is not compiled again.

Python compiles what it imports from a module's zip file and keeps only what came of running it. The program that undoes a
change is made of the same files; compiling them a second time takes about as long as all the rest of a small change.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import CodeType, ModuleType
from typing import Any, Dict, Optional, Sequence

_PACKAGE = __name__.rsplit(".", 2)[0] + "."
_CODE: Dict[str, CodeType] = {}


def keep_compiled() -> None:
    """From now on, keep the code of the collection's modules that are imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def compiled(name: str) -> Optional[CodeType]:
    """Return the code of a module that was imported since keep_compiled(), or None."""
    return _CODE.get(name)


class _Finder:
    """Finds modules as Python itself does, and wraps the loader of those that are to be kept."""

    def find_spec(self, name: str, path: Optional[Sequence[str]] = None, _target: Any = None) -> Optional[ModuleSpec]:
        """Return the spec of a module of the collection, None for any other and for packages (importlib.abc)."""
        if not name.startswith(_PACKAGE):
            return None
        found = PathFinder.find_spec(name, path)
        if found is None or found.submodule_search_locations is not None or not hasattr(found.loader, "get_code"):
            return None
        return importlib.util.spec_from_loader(name, _Loader(found.loader))


class _Loader:
    """Runs a module as its own loader would, and keeps its code."""

    def __init__(self, loader: Any) -> None:
        """Take the module's own loader."""
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, _spec: ModuleSpec) -> None:
        """Have Python make the module (importlib.abc)."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code (importlib.abc)."""
        code = self._loader.get_code(module.__name__)
        _CODE[module.__name__] = code
        exec(code, module.__dict__)


__all__ = ("compiled", "keep_compiled")
