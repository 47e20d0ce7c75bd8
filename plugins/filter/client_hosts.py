# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: client_hosts
short_description: List what an ssh client must know of the hosts behind doors
version_added: 1.0.0
author:
  - sesame.portknock contributors (@sesame)
description:
  - Made for the playbook C(sesame.portknock.client_config).
  - Looks at the same variables as the connection plugin P(sesame.portknock.knock_ssh#connection).
options:
  _input:
    description: The names of the hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of all hosts.
    type: dict
    required: true
  jumps:
    description: The names and addresses that the user's ssh configuration reaches through another host.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Which hosts are behind a door
  ansible.builtin.debug:
    msg: "{{ groups['all'] | sesame.portknock.client_hosts(hostvars) | map(attribute='name') }}"
  no_log: true # the steps are in it
"""

RETURN = r"""
_value:
  description:
    - The hosts behind doors, each with C(name), C(shown), which is the name without what would end a line, C(names), which has it
      in small letters as well, C(aliases), C(address), C(port), C(user), C(knock), and C(left_out), which says why ssh cannot knock
      for this host.
    - C(knock) is the host's line of the file C(knocks) - its name, the engine that recognises the knock, the pause between two
      steps, the host to knock at or C(-), and the steps.
  type: list
  elements: dict
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES, PAUSE, KnockError, Steps
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import DEFAULTS
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock

_SSH = ("ssh", "ansible.builtin.ssh", "smart", "paramiko", "paramiko_ssh", "ansible.netcommon.paramiko")
_KNOCK_SSH = "sesame.portknock.knock_ssh"
_NAME = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:@%+~-]*\Z")
_USER = re.compile(r"[^\s\"'#\\%]+\Z")
# An option of ssh that leads through another host; "none" is no such host.
_THROUGH = re.compile(r"""(?:(?:^|\s)-J\s*|Proxy(?:Jump|Command)\s*[=\s]\s*)(?!["']?none(?:["'\s]|$))\S""", re.I)


def client_hosts(
    names: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], jumps: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Return what an ssh client must know of the hosts behind doors, in their order."""
    hosts = [host for host in (_host(name, hostvars[name], set(jumps)) for name in names) if host]
    shared = Counter(host["address"] for host in hosts)
    taken = {host["name"] for host in hosts}
    small = Counter(host["name"].lower() for host in hosts)
    for host in hosts:
        name, address = host["name"], host["address"]
        # ssh compares names as they are typed, and people type them in small letters.
        lower = name.lower() if name.lower() not in taken and small[name.lower()] == 1 else name
        host["names"] = list(dict.fromkeys([name, lower]))
        # An address of two hosts, behind one NAT for instance, would lead to the first one's door.
        own = bool(address) and shared[address] == 1 and address not in taken | {lower}
        host["aliases"] = host["names"] + ([address] if own else [])
    return hosts


def _host(name: str, variables: Mapping[str, Any], jumps: set[str]) -> dict[str, Any] | None:
    port = _number(name, "ansible_port", _first(variables, ("ansible_port", "ansible_ssh_port"), 22), int)
    try:
        steps = _steps(variables, port)
    except KnockError as error:
        raise AnsibleFilterError(f"{name}: {error}") from None
    if not steps:
        return None
    address = str(_first(variables, ("ansible_host", "ansible_ssh_host"), ""))
    host: dict[str, Any] = {
        "name": name,
        "shown": "".join(letter if letter.isprintable() else "?" for letter in name),
        "address": "" if address == name else address,
        "port": port,
        "user": str(_first(variables, ("ansible_user", "ansible_ssh_user"), "")),
    }
    pause = _number(name, "ansible_knock_pause", _first(variables, ("ansible_knock_pause",), PAUSE), float)
    if not 0 <= pause < math.inf:
        raise AnsibleFilterError(f"{name}: ansible_knock_pause must be a number of seconds, 0 or more.")
    host["left_out"] = _why_not(host, variables, jumps)
    at = str(variables.get("ansible_knock_host") or "-")
    words = [f"{step}/{protocol}" for step, protocol in steps]
    host["knock"] = " ".join([name, _engine(name, variables), f"{pause:g}", at, *words])
    return host


def _engine(name: str, variables: Mapping[str, Any]) -> str:
    engine = _first(variables, ("ansible_knock_engine", "portknock_engine"), DEFAULTS["engine"])
    if engine not in ENGINES:
        raise AnsibleFilterError(f"{name}: portknock_engine must be {' or '.join(ENGINES)}.")
    return str(engine)


def _first(variables: Mapping[str, Any], names: Iterable[str], default: Any) -> Any:
    return next((variables[name] for name in names if variables.get(name) not in (None, "")), default)


def _number(name: str, option: str, value: Any, kind: Callable[[Any], Any]) -> Any:
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise AnsibleFilterError(f"{name}: {option} must be a number.") from None


def _steps(variables: Mapping[str, Any], port: int) -> Steps:
    if not _is_ssh(str(variables.get("ansible_connection") or "ssh")):
        return ()
    return send_knock.steps_for_port(variables.get("ansible_knock"), variables.get("portknock_doors"), port)


def _is_ssh(connection: str) -> bool:
    return connection in (*_SSH, _KNOCK_SSH)


def _why_not(host: dict[str, Any], variables: Mapping[str, Any], jumps: set[str]) -> str:
    """Return why ssh cannot knock by itself for a host, or ''."""
    arguments = " ".join(str(variables.get(f"ansible_ssh_{kind}args") or "") for kind in ("", "common_", "extra_"))
    via = variables.get("ansible_knock_via", send_knock.AUTO)
    names = (host["name"], host["address"], str(variables.get("ansible_knock_host") or ""))
    if not (host["name"] and all(map(_NAME.match, filter(None, names)))):
        return "its name or address has a character that a Host line cannot have."
    if host["user"] and not (_USER.match(host["user"]) and host["user"].isprintable()):
        return "its user has a character that ssh's configuration cannot have."
    if via == send_knock.NONE:
        return "ansible_knock_via is none."
    if via == send_knock.JUMP or _THROUGH.search(arguments) or jumps & {host["name"], host["address"]}:
        return (
            "ssh reaches it through a jump host, and the knock must come from there: in Ansible use the connection "
            f"{_KNOCK_SSH}, by hand knock on the jump host."
        )
    return ""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name to function."""
        return {"client_hosts": client_hosts}
