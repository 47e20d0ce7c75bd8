# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other programs that load a whole ruleset of their own, and so take ours out each time. Pure.

Some of them start long after the network is up, so our unit cannot wait for them. A drop-in of theirs calls our script instead.
"""

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Files, Finding, Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._paths import BOOT_SCRIPT, LOADERS, UNIT_NAME, UNITS

UNKEPT = "unkept"
"""Under which key it is remembered of which IP versions the doors were loaded, with nothing to restore them."""

DROP_IN_TEXT = f"""# Written by sesame.portknock; changes to this file are lost.
# This service loads and removes a whole ruleset, and the doors with it: they are put back behind it.
[Service]
ExecStartPost=-{BOOT_SCRIPT} again
ExecReload=-{BOOT_SCRIPT} again
ExecStopPost=-{BOOT_SCRIPT} again
"""


def drop_in(name: str) -> str:
    """Return the path of our drop-in for a service."""
    return f"{UNITS}/{name}.service.d/portknock.conf"


def loaders_in_use(host: Any) -> Tuple[str, ...]:
    """Return the names of those LOADERS that are set up on a host, and that run or that a boot starts.

    :param host: a Host.
    """
    used = host.systemd.in_use(sorted(LOADERS))
    return tuple(name for name in used if host.filesystem.mode(LOADERS[name]) is not None)


def drop_ins(names: Sequence[str]) -> Files:
    """Return the drop-ins as they should be; there is none for a program that is not among the names."""
    return {drop_in(name): (DROP_IN_TEXT if name in names else None, 0o644) for name in LOADERS}


def drop_in_folders(mode: Callable[[str], Optional[int]]) -> List[str]:
    """Return the folders of our drop-ins for programs that are set up and have none of ours: an empty one may go."""
    return [
        drop_in(name).rpartition("/")[0]
        for name, path in sorted(LOADERS.items())
        if mode(path) is not None and mode(drop_in(name)) is None
    ]


def loader_findings(names: Sequence[str], persist: bool) -> List[Finding]:
    """Return a Finding for each program in use, and one where nothing restores the doors."""
    restored = (
        f"A drop-in has them put back whenever its service starts, reloads or stops; after it was called by hand, run: systemctl "
        f"restart {UNIT_NAME}."
    )
    lost = "Nothing puts them back, since persist is false."
    found = [
        Finding(
            "other_firewall", "", "",
            f"{name} is in use on this host, and whenever it loads its rules it takes the doors out. {restored if persist else lost} "
            "Better have one program for all rules.",
        )
        for name in names
    ]  # fmt: skip
    return found + ([] if persist else [not_persisted()])


def not_persisted() -> Finding:
    """Return the Finding that nothing restores the doors."""
    message = (
        "persist: the doors are not restored at boot, nor after another program has flushed the rules; from then on their ports are as "
        "open as the rest leaves them. Set persist to true, or restore them yourself."
    )
    return Finding("not_persisted", "", "", message)


def unkept(wanted: Wanted) -> Dict[str, Any]:
    """Return what is to be remembered of doors that nothing restores."""
    return {} if wanted.spec is None or wanted.persist else dict.fromkeys(wanted.families, True)


def gone(family: str, remembered: Mapping[str, Any]) -> List[Finding]:
    """Return a Finding where doors are to be there and are not, and nothing restores them.

    :param remembered: what unkept() returned when they were loaded.
    """
    if family not in remembered:
        return []
    message = (
        "persist: the doors were loaded here and are gone, by a boot or because another program has flushed the rules, and nothing "
        "restores them. Run knock_ruleset again, with persist set to true."
    )
    return [Finding("doors_gone", family, "", message)]


__all__ = (
    "DROP_IN_TEXT",
    "UNKEPT",
    "drop_in",
    "drop_in_folders",
    "drop_ins",
    "gone",
    "loader_findings",
    "loaders_in_use",
    "not_persisted",
    "unkept",
)
