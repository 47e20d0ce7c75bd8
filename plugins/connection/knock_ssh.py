# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Core's ssh connection, which knocks first where a new connection is about to be made."""

from __future__ import annotations

DOCUMENTATION = r"""
name: knock_ssh
short_description: ssh through a door that opens to a knock
version_added: 1.0.0
description:
  - Core's P(ansible.builtin.ssh#connection) with all its options, which knocks when, and only when, a new TCP connection is about
    to be made - for the first task, after a control master has ended or was reset, for every retry, for sftp, scp and piped
    transfers.
  - While a control master (ControlPersist) of the host runs, no knock is sent. One whose network is gone is noticed within
    seconds and ended, and a knock is sent.
  - A knock can get lost. A connection that could not be made is tried again with a new knock, twice, or four times where
    O(knock_engine) is V(knockd); nothing that was begun on the host is ever run twice by that.
  - Where a connection cannot be made for all that, the error says which knocks were sent, from where, and what the answer at the
    port means; or that no knock is known for the port, and where to set one.
  - Steps show in no output.
author:
  - sesame.portknock contributors (@sesame)
extends_documentation_fragment:
  - sesame.portknock.ssh_core
  - connection_pipelining
options:
  knock:
    description:
      - The steps of the knock, C(PORT), C(PORT/tcp) or C(PORT/udp), in their order.
      - Where it is not set, those of the door in C(portknock_doors) that opens the connection's port. An empty list is no knock.
    type: list
    elements: str
    vars:
      - name: ansible_knock
  knock_doors:
    description:
      - The doors of the host, as the role P(sesame.portknock.portknock#role) takes them.
    type: raw
    vars:
      - name: portknock_doors
  knock_pause:
    description:
      - Seconds between two steps, so that the second does not overtake the first. Less is waited where the host answers.
    type: float
    default: 0.1
    vars:
      - name: ansible_knock_pause
    env:
      - name: ANSIBLE_KNOCK_PAUSE
    ini:
      - section: knock
        key: pause
  knock_host:
    description:
      - The name or address to knock at, where it is not the one that ssh connects to.
    type: str
    default: ""
    vars:
      - name: ansible_knock_host
  knock_engine:
    description:
      - What recognises the knock on the host. V(knockd) needs a moment after the last step, 0.1 seconds, which is waited; and a
        knock that follows one that was not let in is sent so that what was left of that one is forgotten.
      - Where it is not set, it is what the role P(sesame.portknock.portknock#role) has in the same inventory.
    type: str
    choices: [iptables, knockd, nftables]
    default: iptables
    vars:
      # Of several that are set, the last one counts.
      - name: portknock_engine
      - name: ansible_knock_engine
  knock_via:
    description:
      - V(direct) knocks from the controller, V(jump) from the jump host that ssh's ProxyJump names, by ssh to it.
      - V(auto) is V(jump) where there is a jump host, else V(direct). V(none) does not knock.
    type: str
    choices: [auto, direct, jump, none]
    default: auto
    vars:
      - name: ansible_knock_via
    env:
      - name: ANSIBLE_KNOCK_VIA
    ini:
      - section: knock
        key: via
notes:
  - It stays C(ssh) for modules that look at the connection's kind, such as M(ansible.posix.synchronize). That one calls rsync with
    an ssh of its own, which shares no connection with the play's and does not knock by itself. With the configuration that the
    playbook C(sesame.portknock.client_config) writes it does.
  - Since OpenSSH 9.8 sshd shuts out a source for a while whose connections do not log in (C(PerSourcePenalties)). This plugin makes
    no such connections. On Linux M(sesame.portknock.knock) with C(wait_for), and M(sesame.portknock.knock_verify), do not either -
    they see from the first answer that a port is open; elsewhere they make one each time they look.
seealso:
  - module: sesame.portknock.knock
"""

import os
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.plugins.connection import ssh
from ansible.utils.display import Display
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.control_master import ControlMaster

if TYPE_CHECKING:
    from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import SshPath

# Every task loads this file anew. What only a knock needs is imported where one is sent.

display = Display()
_CONNECTION_LOST = 255
# ssh did not even begin to speak, so nothing can have been run.
_NEVER_CONNECTED = ("ssh: connect to host", "Connection timed out during banner exchange", "stdio forwarding failed")

Done = tuple[int, bytes, bytes]
"""How ssh ended: its exit code, output and errors."""


def _never_connected(text: str) -> bool:
    return any(message in text for message in _NEVER_CONNECTED)


class Connection(ssh.Connection):
    """Core's ssh, with a knock before each new connection."""

    _missed = 0
    """How many knocks were sent since one was let in; core's own retries count too."""

    _knocked_along: SshPath | None = None
    """The path of the last knock."""

    def set_options(self, task_keys: Any = None, var_options: Any = None, direct: Any = None) -> None:
        """Take the options; what is wrong with one of ours is said by the variable's name."""
        try:
            super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        except AnsibleError:
            from ansible_collections.sesame.portknock.plugins.plugin_utils.send_knock import check_choices

            check_choices(var_options or {})
            raise

    def _bare_run(self, cmd: list[bytes], in_data: bytes | None, sudoable: bool = True, checkrc: bool = True) -> Done:
        """Run one ssh, sftp or scp: all that core's plugin does goes through here, each retry as well."""
        try:
            code, output, errors = self._run_through_door(cmd, in_data, sudoable, checkrc)
        except AnsibleConnectionFailure as error:
            words = self._explain(str(error))
            if not words:
                raise
            raise AnsibleConnectionFailure(f"{str(error).rstrip().rstrip('.')}. {words}") from error
        words = self._explain(to_text(errors)) if code == _CONNECTION_LOST else ""
        return code, output, errors.rstrip() + to_bytes(f". {words}") if words else errors

    def _explain(self, text: str) -> str:
        """Return what to add to an error, '' unless a connection could not be made."""
        # Without a knock, the host is served by a control master: then it is a command there that has printed this.
        if not _never_connected(text) or (self.knocks_itself() and not self._missed):
            return ""
        from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.explain import explain

        return explain(self, text, self._knocked_along, self._missed)

    def _run_through_door(self, cmd: list[bytes], in_data: bytes | None, sudoable: bool, checkrc: bool) -> Done:
        if not self.knocks_itself():
            return super()._bare_run(cmd, in_data, sudoable=sudoable, checkrc=checkrc)
        host = self.get_option("host") or self.host
        directory = os.path.expanduser(self.get_option("control_path_dir"))
        control_master = ControlMaster(self, host, directory)
        if control_master.serves(cmd):
            done = super()._bare_run(cmd, in_data, sudoable=sudoable, checkrc=checkrc)
        else:
            done = self._knock_and_run(control_master, cmd, in_data, sudoable, checkrc)
        if done[0] != _CONNECTION_LOST:
            self._missed = 0
            control_master.note_use()
        return done

    def knocks_itself(self) -> bool:
        """Return whether it knocks before each new connection, and so decides how long one may take."""
        return self.get_option("knock_via") != "none" and self._may_knock()

    def _may_knock(self) -> bool:
        steps = self.get_option("knock")
        return bool(steps if steps is not None else self.get_option("knock_doors"))

    def _knock_and_run(
        self, control_master: ControlMaster, cmd: list[bytes], in_data: bytes | None, sudoable: bool, checkrc: bool
    ) -> Done:
        """Run a command that makes a new connection; again, with a new knock, as long as it could not be made."""
        from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES

        # A password goes through a pipe that is read once.
        tries = 1 if self.get_option("password") else ENGINES[self.get_option("knock_engine")].tries
        for left in reversed(range(tries)):
            # Another process may have made a connection to share since the last try.
            knocked = left == tries - 1 or not control_master.serves(cmd)
            again = knocked and left > 0
            words = self._with_options(cmd, self._prepare(control_master, tries - 1 - left, again)) if knocked else cmd
            try:
                done = super()._bare_run(words, in_data, sudoable=sudoable, checkrc=checkrc)
            except AnsibleConnectionFailure as error:
                if not (again and _never_connected(str(error))):
                    raise
                continue
            if not (again and done[0] == _CONNECTION_LOST and _never_connected(to_text(done[2]))):
                break
        return done

    def _with_options(self, cmd: list[bytes], options: list[bytes]) -> list[bytes]:
        """Return a command with more options behind the name of its program, which may stand behind sshpass."""
        programs = {to_bytes(self.get_option(f"{kind}_executable")) for kind in ("ssh", "sftp", "scp")}
        at = next((number for number, word in enumerate(cmd) if word in programs), 0) + 1
        return [*cmd[:at], *options, *cmd[at:]]

    def _prepare(self, control_master: ControlMaster, turn: int, again: bool) -> list[bytes]:
        """Knock, and return the options for the new connection: no address may take the time that the door is open for all.

        :param turn: how many tries there were before.
        :param again: whether another try follows this one.
        """
        from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock
        from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import (
            look_up,
            options_without_lookup,
            ssh_path,
        )
        from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.patience import (
            LONGEST,
            hurried_patience,
            longest_patience,
        )

        path = ssh_path(self)
        # Before the knock: from its end on the window runs.
        lookup = look_up(path)
        self._knock(path)
        control_master.note_path(lookup.addresses)
        options = options_without_lookup(path, lookup, turn)
        window = send_knock.window_for_port(self.get_option("knock_doors"), path.port)
        addresses = 1 if options else len(lookup.addresses) or 1
        seconds = (hurried_patience if again else longest_patience)(addresses, window, path.timeout)
        if again or seconds < (path.timeout or LONGEST):
            options += (f"ConnectTimeout={seconds}",)
        return [word for option in options for word in (b"-o", option.encode())]

    def _knock(self, path: SshPath) -> None:
        from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import KnockError
        from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock

        host = self.get_option("host") or self.host
        try:
            knock = send_knock.Knock(
                steps=send_knock.steps_for_port(self.get_option("knock"), self.get_option("knock_doors"), path.port),
                pause=self.get_option("knock_pause"),
                host=self.get_option("knock_host") or "",
                via=self.get_option("knock_via"),
                engine=self.get_option("knock_engine"),
            )
            if knock.steps:
                display.vvv("knocking, for a new connection", host=host)
            directory = os.path.expanduser(self.get_option("control_path_dir"))
            with send_knock.one_at_a_time(directory, knock.host or path.host):
                send_knock.send(self, knock.of_turn(self._missed), path, display.warning)
            self._missed += 1
            self._knocked_along = path
        except KnockError as error:
            raise AnsibleConnectionFailure(f"Failed to knock at {host}: {error}") from error
