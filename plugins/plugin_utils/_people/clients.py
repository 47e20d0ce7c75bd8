# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an ssh client must know of the hosts behind doors, from the same variables as the connection plugin knock_ssh. Pure.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible.errors import AnsibleError
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES, PAUSE, KnockError, Steps
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import DEFAULTS
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.jump import jump_arguments
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import SshPath, is_address

_SSH = ("ssh", "ansible.builtin.ssh", "smart", "paramiko", "paramiko_ssh", "ansible.netcommon.paramiko")
_KNOCK_SSH = "sesame.portknock.knock_ssh"
_NAME = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:@%+~-]*\Z")
_USER = re.compile(r"[^\s\"'#\\%]+\Z")
_ADDRESS_FACTS = ("default_ipv4", "default_ipv6")


class Wish(NamedTuple):
    """What the inventory says of a host behind a door."""

    name: str
    """Its name in the inventory."""
    address: str
    """The name or address that Ansible gives ssh."""
    knock: Any
    """``ansible_knock``, None where it is not set."""
    doors: Any
    """``portknock_doors``."""
    engine: str
    """What recognises the knock."""
    pause: float
    """Seconds between two steps."""
    at: str
    """The name or address to knock at, where it is not the one that ssh connects to."""
    via: str
    """``ansible_knock_via``."""
    known: tuple[str, ...]
    """Addresses of the host that the inventory or gathered facts give."""


class Client(NamedTuple):
    """A host behind a door, as the ssh client's configuration has it."""

    name: str
    """Its name in the inventory."""
    names: tuple[str, ...]
    """What a person types: its name, and in small letters as well."""
    aliases: tuple[str, ...]
    """Its names and those of its addresses that lead to this host alone."""
    address: str
    """What ssh connects to, where it is not the name."""
    port: int
    """The port of its sshd."""
    user: str
    """The name to log in with, '' for that of whoever calls ssh."""
    steps: Steps
    """The knock, as (port, protocol) pairs."""
    engine: str
    """What recognises it."""
    pause: float
    """Seconds between two steps."""
    at: str
    """Where to knock, '' for where ssh connects to."""
    window: float
    """Seconds for which the door is open after the knock."""
    jump: str = ""
    """The arguments of ssh that lead to the jump host, as text for a shell with ssh's tokens in it; '' for no jump host."""
    options: tuple[str, ...] = ()
    """More lines of its block, such as ``identityfile ~/.ssh/x``."""
    left_out: str = ""
    """Why ssh cannot knock for this host by itself, or ''."""

    @property
    def shown(self) -> str:
        """The name without what would end a line."""
        return "".join(letter if letter.isprintable() else "?" for letter in self.name)

    @property
    def words(self) -> list[str]:
        """The steps as they are written, ``7144/tcp``."""
        return [f"{port}/{protocol}" for port, protocol in self.steps]

    @property
    def knock(self) -> str:
        """The host's line of the file ``knocks``."""
        return " ".join([self.name, self.engine, f"{self.pause:g}", self.at or "-", *self.words])


def read_wish(name: str, variables: Mapping[str, Any]) -> Wish | None:
    """Return what the inventory says of a host; None where Ansible does not reach it by ssh, or there is no knock for it.

    :raises AnsibleError: for a variable that cannot be used; never shows a step.
    """
    knock, doors = variables.get("ansible_knock"), variables.get("portknock_doors")
    if not _is_ssh(str(variables.get("ansible_connection") or "ssh")) or not (doors if knock is None else knock):
        return None
    pause = _number(name, "ansible_knock_pause", _first(variables, ("ansible_knock_pause",), PAUSE))
    via = str(_first(variables, ("ansible_knock_via",), send_knock.AUTO))
    if via not in send_knock.VIA:
        raise AnsibleError(f"{name}: ansible_knock_via must be one of {', '.join(send_knock.VIA)}.")
    engine = _first(variables, ("ansible_knock_engine", "portknock_engine"), DEFAULTS["engine"])
    if engine not in ENGINES:
        raise AnsibleError(f"{name}: portknock_engine must be one of {', '.join(ENGINES)}.")
    address = str(_first(variables, ("ansible_host", "ansible_ssh_host"), name))
    at = str(variables.get("ansible_knock_host") or "")
    return Wish(name, address, knock, doors, str(engine), pause, at, via, _known_addresses(address, variables))


def _known_addresses(address: str, variables: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the addresses that are in the inventory, or in facts that were gathered before and kept."""
    found = [address, str(variables.get("ansible_ssh_host") or "")]
    facts = variables.get("ansible_facts")
    for fact in _ADDRESS_FACTS:
        value = (facts if isinstance(facts, Mapping) else {}).get(fact) or variables.get(f"ansible_{fact}")
        found.append(str(value.get("address") or "") if isinstance(value, Mapping) else "")
    return tuple(dict.fromkeys(each for each in found if is_address(each)))


def client_of(wish: Wish, path: SshPath, config: str = "") -> Client | None:
    """Return what ssh must know of a host; None where no door is in front of the port that ssh connects to.

    :param path: the path that Ansible's ssh takes to it, with the name that it logs in with, '' for that of whoever calls ssh.
    :param config: the file that ssh must be given to find the jump host, '' for the usual ones.
    :raises AnsibleError: for steps that cannot be used; never shows one.
    """
    try:
        steps = send_knock.steps_for_port(wish.knock, wish.doors, path.port)
    except KnockError as error:
        raise AnsibleError(f"{wish.name}: {error}") from None
    if not steps:
        return None
    # ssh prints names in small letters.
    address = "" if path.host.lower() == wish.name.lower() else path.host
    client = Client(
        wish.name, (), (), address, path.port, path.user, tuple(steps), wish.engine, wish.pause, wish.at,
        send_knock.window_for_port(wish.doors, path.port),
    )  # fmt: skip
    reason = unwritable(wish, path.user) or _out_of_reach(wish, path)
    if reason or not path.jumps:
        return client._replace(left_out=reason)
    try:
        return client._replace(jump=jump_arguments(path, config))
    except KnockError as error:
        return client._replace(left_out=str(error))


def unwritable(wish: Wish, user: str) -> str:
    """Return why ssh's configuration cannot have a host, or ''."""
    if not (wish.name and all(map(_NAME.match, filter(None, (wish.name, wish.address, wish.at))))):
        return "its name or address has a character that a Host line cannot have."
    if user and not (_USER.match(user) and user.isprintable()):
        return "its user has a character that ssh's configuration cannot have."
    return ""


def _out_of_reach(wish: Wish, path: SshPath) -> str:
    if wish.via == send_knock.NONE:
        return "ansible_knock_via is none."
    if wish.via == send_knock.JUMP and not path.jumps:
        return "ansible_knock_via is jump, but ssh reaches it through no jump host. Set ansible_knock_via to direct."
    if path.jumps and (wish.at or wish.via == send_knock.DIRECT):
        return (
            "ssh reaches it through a jump host, but it is to be knocked at from here (ansible_knock_host or "
            f"ansible_knock_via): in Ansible use the connection {_KNOCK_SSH}, by hand knock first."
        )
    return ""


def with_aliases(clients: Sequence[Client], addresses: Mapping[str, Iterable[str]]) -> list[Client]:
    """Return the hosts with the names and addresses by which a person may call each of them.

    :param addresses: name of a host to all its addresses as far as they are known.
    """
    taken = {client.name for client in clients}
    small = Counter(client.name.lower() for client in clients)
    own = {client.name: _addresses_of(client, addresses.get(client.name, ())) for client in clients}
    shared = Counter(address for found in own.values() for address in found)
    given = []
    for client in clients:
        # ssh compares names as they are typed, and people type them in small letters.
        lower = client.name.lower()
        lower = lower if lower not in taken and small[lower] == 1 else client.name
        names = tuple(dict.fromkeys([client.name, lower]))
        # An address of two hosts, behind one NAT for instance, would lead to the first one's door.
        alone = [each for each in own[client.name] if shared[each] == 1 and each not in taken | {lower}]
        given.append(client._replace(names=names, aliases=(*names, *alone)))
    return given


def _addresses_of(client: Client, known: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(each for each in (client.address, *known) if each and _NAME.match(each)))


def _is_ssh(connection: str) -> bool:
    return connection in (*_SSH, _KNOCK_SSH)


def _first(variables: Mapping[str, Any], names: Iterable[str], default: Any) -> Any:
    return next((variables[name] for name in names if variables.get(name) not in (None, "")), default)


def _number(name: str, option: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise AnsibleError(f"{name}: {option} must be a number.") from None
    if not 0 <= number < math.inf:
        raise AnsibleError(f"{name}: {option} must be a number of seconds, 0 or more.")
    return number
