# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engines there are: which parts each is made of. A further engine is a folder with its parts, and a line here."""

from typing import Any, Dict, List, Tuple, Type

from ansible_collections.sesame.portknock.plugins.module_utils._change.host_command import HostCommand
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Part
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.ruleset import Ruleset
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.daemon import Daemon
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.table import Table
from ansible_collections.sesame.portknock.plugins.module_utils._services.services import Services

ENGINES: Dict[str, Tuple[Type[Part], ...]] = {
    "iptables": (Ruleset,),
    "knockd": (Ruleset, Daemon),
    "nftables": (Table,),
}
"""Name to parts in the order in which they are loaded. The last one recognises the knocks."""

_FOR_ALL: Tuple[Type[Part], ...] = (Services, HostCommand)
"""Parts that every engine has, loaded before its own."""
_FIRST: Tuple[Type[Part], ...] = (*_FOR_ALL, Table)
"""Asked who has a door open, the table knows whether it is there; the ruleset only by reading all of it."""
PARTS: Tuple[Type[Part], ...] = tuple(dict.fromkeys(part for parts in (_FIRST, *ENGINES.values()) for part in parts))
"""Every part there is, in the order in which they are planned and loaded; those that are taken out are loaded after the others."""


def parts_on(host: Any) -> List[Part]:
    """Return every part for a Host."""
    return [part(host) for part in PARTS]


def import_late(host: Any) -> None:
    """Import what may be needed later, when the files of this code are gone."""
    from ansible_collections.sesame.portknock.plugins.module_utils._host import seldom  # noqa: F401

    for part in parts_on(host):
        part.import_late()


def takes_part(engine: str, part: Part) -> bool:
    """Return whether an engine needs a part."""
    return part.__class__ in (*_FOR_ALL, *ENGINES[engine])


def engine_of(installed: Dict[str, bool]) -> str:
    """Return the name of the engine that a host has, '' for none.

    :param installed: as Report has it. A part that recognises no knock is one of an engine whose last part may be gone.
    """
    for name, parts in ENGINES.items():
        if parts[0].name in installed and installed[parts[0].name] == (len(parts) == 1):
            return name
    return ""


__all__ = ("ENGINES", "PARTS", "engine_of", "import_late", "parts_on", "takes_part")
