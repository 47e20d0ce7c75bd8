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
    to be made - for the first task, after a master has ended or was reset, for every retry, for sftp, scp and piped transfers.
  - While a ControlPersist master serves the host, nothing is knocked. A master whose network is gone is noticed within seconds,
    ended, and knocked past.
  - A knock can get lost. A connection that could not be made is tried again with a new knock, twice, or four times where
    O(knock_engine) is V(knockd); nothing that was begun on the host is ever run twice by that.
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
      - Who recognises the knock on the host. V(knockd) needs a moment after the last step, 0.1 seconds, which is waited; and a
        knock that follows one that did not get in is sent so that what was left of that one is forgotten.
      - Where it is not set, it is what the role P(sesame.portknock.portknock#role) has in the same inventory.
    type: str
    choices: [iptables, knockd]
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
  - It stays C(ssh) for modules that look at the connection's kind, such as M(ansible.posix.synchronize), which then finds the
    master. Where it makes a connection of its own, the playbook C(sesame.portknock.client_config) helps.
seealso:
  - module: sesame.portknock.knock
"""

import os
import re

from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.connection import ssh
from ansible.utils.display import Display
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import KnockError
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock as knocking
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.control_master import Master
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import ssh_path

display = Display()
_CONNECTION_LOST = 255
# Of 100 knocks over a path that loses one packet in fifty and mixes up one in four, seven to ten fail. knockd also breaks a
# knock of which a packet arrives twice, and keeps what is left of one, so that now and then the next one fails as well.
_TRIES = {"iptables": 3, "knockd": 5}
# All but the last try: where a knock got lost, waiting does not help.
_HURRY = b"ConnectTimeout=4"
# ssh did not even begin to speak, so nothing can have been run.
_NEVER_CONNECTED = re.compile(r"ssh: connect to host|Connection timed out during banner exchange")


class Connection(ssh.Connection):
    """Core's ssh, with a knock before each new connection."""

    _missed = 0
    """How many knocks have not got in since one has; core's own retries count too."""

    def _bare_run(self, cmd, in_data, sudoable=True, checkrc=True):
        """Run one ssh, sftp or scp: all that core's plugin does goes through here, each retry as well."""
        if self.get_option("knock_via") == knocking.NONE or not self._may_knock():
            return super()._bare_run(cmd, in_data, sudoable=sudoable, checkrc=checkrc)
        # A password goes through a pipe that is read once.
        tries = 1 if self.get_option("password") else _TRIES[self.get_option("knock_engine")]
        for left in reversed(range(tries)):
            knocked, master = self._before(cmd)
            self._missed += knocked
            hurried = [cmd[0], b"-o", _HURRY, *cmd[1:]] if knocked and left else cmd
            try:
                done = super()._bare_run(hurried, in_data, sudoable=sudoable, checkrc=checkrc)
            except AnsibleConnectionFailure as error:
                if not (knocked and left and _NEVER_CONNECTED.search(str(error))):
                    raise
                continue
            if not (knocked and left and done[0] == _CONNECTION_LOST and _NEVER_CONNECTED.search(to_text(done[2]))):
                break
        if done[0] != _CONNECTION_LOST:
            self._missed = 0
            master.used()
        return done

    def _before(self, cmd):
        """Knock, unless a master serves the command; return whether it was knocked, and the Master."""
        host = self.get_option("host") or self.host
        directory = os.path.expanduser(self.get_option("control_path_dir"))
        master = Master(self, host, directory)
        if master.serves(cmd):
            return False, master
        self._knock(host, directory)
        return True, master

    def _may_knock(self):
        steps = self.get_option("knock")
        return bool(steps) if steps is not None else bool(knocking.doors_of(self.get_option("knock_doors")))

    def _knock(self, host, directory):
        try:
            path = ssh_path(self)
            words = self.get_option("knock")
            if words is None:
                words = knocking.door_for_port(self.get_option("knock_doors"), path.port).get("knock")
            knock = knocking.Knock(
                steps=knocking.steps_of(words, "ansible_knock") if words else (),
                pause=self.get_option("knock_pause"),
                host=self.get_option("knock_host") or "",
                via=self.get_option("knock_via"),
                engine=self.get_option("knock_engine"),
            )
            if knock.steps:
                display.vvv("knocking, for a new connection", host=host)
            with knocking.one_at_a_time(directory, knock.host or path.host):
                knocking.send(self, knock.of_turn(self._missed), path, display.warning)
        except KnockError as error:
            raise AnsibleConnectionFailure(f"Failed to knock at {host}: {error}") from error
