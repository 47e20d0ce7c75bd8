# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the inventory and ssh's own answers to the hosts of a configuration, and the check of that configuration.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import getpass
import re
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ansible.errors import AnsibleError
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import KnockError
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.ask_ssh import (
    LOCAL,
    LOGIN_VARIABLES,
    Dump,
    Login,
    Ssh,
    login_of,
    missing_options,
    own_config,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.clients import (
    Client,
    Wish,
    client_of,
    read_wish,
    unwritable,
    with_aliases,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.config_text import Commands, config_text
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.jump import destination, jump_arguments
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import SshPath, is_address

LOOKUP_SECONDS = 2.0
"""Seconds for all names together to be looked up: their addresses are only aliases."""

VARIABLES = (
    *("ansible_connection", "ansible_host", "ansible_ssh_host", "ansible_facts"),
    *("ansible_default_ipv4", "ansible_default_ipv6", "portknock_doors", "portknock_engine"),
    *(f"ansible_knock{each}" for each in ("", "_engine", "_pause", "_host", "_via")),
    *LOGIN_VARIABLES,
)
"""All that is looked at of a host."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Found:
    """A host on its way into the configuration."""

    def __init__(self, wish: Wish, login: Login) -> None:
        """Take what the inventory says of it."""
        self.wish, self.login = wish, login
        self.path = SshPath(wish.address, login.port, "any", login.user)
        self.dump: Dump = {}
        self.client: Client | None = None


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return what a function returns for each of the items: it waits for another process."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(function, items))


def hosts_with_knocks(names: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[Found]:
    """Return the hosts for which the inventory has a knock.

    :raises AnsibleError: for a variable that cannot be used; never shows a step.
    """
    found = []
    for name in names:
        known = hostvars[name]
        variables = {each: _resolved(name, known, each) for each in VARIABLES if each in known}
        wish = read_wish(name, variables)
        if wish:
            found.append(Found(wish, login_of(name, wish.address, variables)))
    return found


def _resolved(name: str, known: Mapping[str, Any], variable: str) -> Any:
    """Return the value of a variable; the error names the variable, and not its value."""
    try:
        value = known[variable]
    except AnsibleError as error:
        reason = str(error).splitlines()[0]
        raise AnsibleError(f"{name}: {variable} cannot be resolved: {reason.rstrip('.')}.") from None
    # What older releases of ansible-core leave of a template with an undefined variable.
    if isinstance(value, str) and "{{" in value:
        raise AnsibleError(f"{name}: {variable} cannot be resolved: a variable in its template is undefined.")
    return value


def find_clients(found: Sequence[Found], ssh: Ssh, config: str) -> list[Client]:
    """Return the hosts that have a door in front of ssh, by ssh's own answers.

    :param config: the user's own configuration, where it is not the usual one; '' where it is.
    :raises AnsibleError: if ssh does not take its arguments; for steps that cannot be used.
    """

    def ask(each: Found) -> None:
        wish, login = each.wish, each.login
        # What is no name to ssh is not asked about.
        if not unwritable(wish, login.user):
            path, each.dump = ssh.as_ansible(wish.name, login)
            each.path = path._replace(user=path.user if login.user else _not_mine(path.user))
        each.client = client_of(wish, each.path, own_config(login.words) or config)

    in_parallel(ask, found)
    clients = [each.client for each in found if each.client]
    return with_aliases(clients, addresses_of_names([each.wish for each in found if each.client]))


def addresses_of_names(wishes: Sequence[Wish]) -> dict[str, tuple[str, ...]]:
    """Return all addresses of each host: those that are known, and what its name is looked up to."""
    found = {wish.name: wish.known for wish in wishes}

    def look_up(name: str, host: str) -> None:
        try:
            answers = socket.getaddrinfo(host, None, 0, socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        found[name] += tuple(str(answer[4][0]) for answer in answers if not _is_loopback(str(answer[4][0])))

    # Not a pool, which would wait for a resolver that does not answer.
    threads = [
        threading.Thread(target=look_up, args=(wish.name, wish.address), daemon=True)
        for wish in wishes
        if not is_address(wish.address)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LOOKUP_SECONDS / len(threads))
    return dict(found)


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def with_options(
    found: Sequence[Found], clients: Sequence[Client], ssh: Ssh, commands: Commands, folder: Path
) -> list[Client]:
    """Return the hosts with the settings that a person's ssh lacks to do what Ansible's does."""
    base = folder / "base"
    base.write_text(config_text(clients, "", commands), encoding="utf-8")
    dumps = {each.wish.name: each.dump for each in found}

    def complete(client: Client) -> Client:
        if client.left_out:
            return client
        try:
            options = missing_options(dumps[client.name], ssh.with_config(base, client.name))
        except ValueError as error:
            return client._replace(left_out=str(error))
        return client._replace(options=options)

    return in_parallel(complete, clients)


def _not_mine(user: str) -> str:
    """Return a name to log in with, '' where it is that of whoever runs this, which ssh takes by itself."""
    return user if user != getpass.getuser() else ""


def for_others(found: Sequence[Found], clients: Sequence[Client], ssh: Ssh) -> list[Client]:
    """Return the hosts with the settings that make sense on another machine: the inventory's, without files of this one."""
    known = {each.wish.name: each for each in found}

    def complete(client: Client) -> Client:
        if client.left_out:
            return client
        each = known[client.name]
        _path, dump = ssh.as_ansible(client.name, each.login, "none")
        client = client._replace(options=missing_options(dump, ssh.with_config(None, client.name), LOCAL))
        try:
            return client._replace(jump=_jump_for_others(each, ssh, known)) if client.jump else client
        except KnockError as error:
            return client._replace(left_out=str(error))

    return in_parallel(complete, clients)


def _jump_for_others(each: Found, ssh: Ssh, known: Mapping[str, object]) -> str:
    """Return the arguments that lead to the jump host without the configuration of this machine.

    :raises KnockError: if there are none.
    """
    if not each.path.jump:
        raise KnockError("ssh reaches it by a ProxyCommand of this machine. Use ProxyJump.")
    config = own_config(each.login.words)
    hops = []
    for hop in each.path.jump.split(","):
        user, host, port = destination(hop)
        if host in known:
            # It is in the same configuration.
            hops.append(hop)
            continue
        words = [word for pair in (("-F", config), ("-p", port), ("-l", user)) if pair[1] for word in pair]
        path, _dump = ssh.as_ansible(each.wish.name, Login(host, tuple(words), user, 0))
        if path.jumps:
            raise KnockError(
                f"its jump host {host} is behind another one, which only this machine's configuration names."
            )
        user = user or _not_mine(path.user)
        hops.append(f"{user}@[{path.host}]:{path.port}" if user else f"[{path.host}]:{path.port}")
    return jump_arguments(each.path._replace(jump=",".join(hops)))


def check(clients: Sequence[Client], ssh: Ssh, text: str, new: Path) -> None:
    """See that ssh takes a configuration, and goes the way it describes to each host.

    :param new: a file for it.
    :raises AnsibleError: where it does not.
    """
    new.write_text(text, encoding="utf-8")

    def look(client: Client) -> None:
        dump = ssh.with_config(new, client.name)
        command = dump.get("proxycommand", [""])[0]
        if not re.search(r"portknock-(connect|jump)\.", command) or dump["port"] != [str(client.port)]:
            raise AnsibleError(f"{client.name}: with the new configuration ssh would not knock. Nothing was written.")

    written = [client for client in clients if not client.left_out]
    in_parallel(look, written)
    if not written:
        ssh.with_config(new, "localhost")
