# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is kept over a reboot: which files a distribution reads, and what they should hold. Pure.

Debian's netfilter-persistent prints an error and exits 0 for a file that does not load: a green unit and
an open host. So a unit of our own looks after boot whether the doors are there, closes them if not, and
fails, so that it is seen.
"""

import re
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Files, Finding
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.boot import (
    BOOT_SCRIPT_TEXT,
    BOOT_UNIT_TEXT,
    closed_text,
    fallback_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import BuiltRules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.rules_file import merged_file
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    BOOT_SCRIPT,
    DIRECTORY,
    IPTABLES,
    RULES_FILES,
    UNIT,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec


class Layout(NamedTuple):
    """Which files a distribution loads at boot."""

    name: str
    """Of the family of distributions."""
    rules: Dict[str, str]
    """IP version to the path of its rules file."""


LAYOUTS = {name: Layout(name, rules) for name, rules in RULES_FILES.items()}
_LIKE = {
    "debian": "debian", "ubuntu": "debian", "raspbian": "debian", "linuxmint": "debian",
    "rhel": "el", "fedora": "el", "centos": "el", "rocky": "el", "almalinux": "el", "ol": "el", "amzn": "el",
}  # fmt: skip


def layout_of(os_release: str) -> Layout:
    """Return the Layout for the text of /etc/os-release.

    :raises HostError: for a distribution whose rules files are not known.
    """
    fields = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', os_release, re.M))
    for name in [fields.get("ID", "")] + fields.get("ID_LIKE", "").split():
        if name in _LIKE:
            return LAYOUTS[_LIKE[name]]
    raise HostError(
        "persist: it is not known where {0} keeps its iptables rules. Set persist to false and keep them "
        "yourself, or use one of the supported distributions.".format(fields.get("PRETTY_NAME", "this distribution"))
    )


def wanted_files(
    spec: Optional[Spec], built: Mapping[str, BuiltRules], layout: Layout, read: Callable[[str], str]
) -> Files:
    """Return path to (text, mode) of every file that is to be kept; text None where it is to go.

    :param spec: a Spec, or None where all files are to be removed.
    :param built: family to its rules for those that are managed; in the files of the others no such rule stays.
    :param read: function from a path to the file's text, '' where there is none.
    """
    files: Files = {}
    for family, path in sorted(layout.rules.items()):
        rules = built.get(family)
        before = read(path)
        after = merged_file(before, rules, spec, path)
        if after != before or rules:
            files[path] = (after if after.strip() else None, 0o600)
        command = IPTABLES[family]
        files[f"{DIRECTORY}/{command}.rules"] = (fallback_text(rules) if rules else None, 0o600)
        files[f"{DIRECTORY}/{command}.closed"] = (closed_text(spec, family) if spec and rules else None, 0o600)
    files[BOOT_SCRIPT] = (BOOT_SCRIPT_TEXT if spec else None, 0o755)
    files[UNIT] = (BOOT_UNIT_TEXT if spec else None, 0o644)
    return files


def modprobe_text(spec: Spec) -> str:
    """Return the options that xt_recent is to be loaded with (modprobe.d(5))."""
    return (
        "# Written by sesame.portknock: sources remembered per door and stage, lists for root alone.\n"
        f"options xt_recent ip_list_tot={spec.list_size} ip_list_perms=0600\n"
    )


def list_size_finding(wanted: int, found: Optional[int], is_module: bool) -> List[Finding]:
    """Return a list with the Finding that the running kernel remembers less than was asked for, or an empty one.

    :param wanted: sources for each list.
    :param found: what the kernel says, None where it does not.
    :param is_module: whether xt_recent is a module here.
    """
    if found is None or found >= wanted:
        return []
    advice = f"xt_recent is built into this kernel: put xt_recent.ip_list_tot={wanted} on its command line."
    if is_module:
        advice = "It will take effect when the module is loaded next, at the latest with the next boot."
    message = (
        f"list_size: the running kernel remembers {found} sources per list, {wanted} were asked for; that many forged packets "
        f"push a real knock out. {advice}"
    )
    return [Finding("list_size", "", "", message)]


def saving_services(configs: Mapping[str, str]) -> List[Finding]:
    """Return a Finding for each setting that makes the distribution's service write the kernel's rules to its file.

    :param configs: path to text of IPTABLES_SERVICE_CONFIGS.
    """
    return [
        Finding(
            "saves_on_stop", "", "",
            f"{name} in {path}: stopping or restarting the service writes whatever is in the kernel to the rules file, a change "
            "that is not confirmed yet as well, and rules of programs that come and go. Set it to no.",
        )
        for path, text in sorted(configs.items())
        for name in re.findall(r"^\s*(IP6?TABLES_SAVE_ON_(?:STOP|RESTART))=[\"']?yes\b", text, re.M)
    ]  # fmt: skip


__all__ = (
    "Layout",
    "layout_of",
    "list_size_finding",
    "modprobe_text",
    "saving_services",
    "wanted_files",
)
