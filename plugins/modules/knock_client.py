#!/usr/bin/python
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: knock_client
short_description: Write an ssh configuration that knocks
version_added: 1.1.0
description:
  - Writes, on the controller, an ssh configuration with which ssh, and everything that calls it, knocks for each new connection to
    the hosts of the inventory that have a door in front of ssh.
  - Looks at the same variables as the connection plugin P(sesame.portknock.knock_ssh#connection), and asks ssh how Ansible reaches
    each host - address, port, user, key, jump host and other settings are carried over, so that C(ssh NAME) works where Ansible
    does.
  - A host behind a jump host is knocked at by the jump host.
  - The result is checked with C(ssh -G) before it replaces the one that was there. Hosts that went, go from it.
  - The playbook C(sesame.portknock.client_config) runs it, once for all hosts.
author:
  - sesame.portknock contributors (@sesame)
attributes:
  action:
    description: Writes on the controller.
    support: full
  check_mode:
    description: Looks what would be written, and writes nothing.
    support: full
  diff_mode:
    description: Shows the configuration, never the knocks.
    support: full
  idempotent:
    description: Writes only what is not as it should be.
    support: full
  platform:
    description: Any that Ansible's controller runs on.
    support: full
    platforms: posix
options:
  hosts:
    description: The names of the hosts.
    type: list
    elements: str
    required: true
  directory:
    description:
      - Where it is written. It and its files are made readable by their owner alone.
      - If empty, C(~/.ssh/portknock), or with O(person) C(portknock-NAME) in the current directory.
    type: str
    default: ""
  person:
    description:
      - The name of a person or machine. A directory is written that another person can copy to their C(~/.ssh/portknock-NAME),
        beside those of other names - the configuration, the programs, and a page as HTML and as plain text that says how to use
        it, with the knocks as a list and as a QR code. C(windows.config) and a PowerShell program are for OpenSSH on Windows.
      - Keys and other files of the controller are not carried over. The QR code needs the Python library C(segno) on the controller;
        without it there is a warning and the page has no code.
    type: str
    default: ""
  program:
    description:
      - V(python) hands ssh the open connection. V(bash) copies between them, for a directory that is taken to a machine without
        Python. V(auto) is V(python), or with O(person) V(bash).
    type: str
    choices: [auto, python, bash]
    default: auto
  ssh_config:
    description: The user's own ssh configuration, which says how hosts are reached.
    type: str
    default: ~/.ssh/config
notes:
  - Settings for sharing connections (C(ControlMaster), C(ControlPath), C(ControlPersist)), forwarded ports, and those that make sense
    for a single call alone are not carried over.
seealso:
  - plugin: sesame.portknock.knock_ssh
    plugin_type: connection
"""

EXAMPLES = r"""
- name: Let ssh knock at the hosts of this play
  sesame.portknock.knock_client:
    hosts: "{{ ansible_play_hosts_all }}"
  run_once: true

- name: Write a directory for a colleague
  sesame.portknock.knock_client:
    hosts: "{{ ansible_play_hosts_all }}"
    person: anna
  run_once: true
"""

RETURN = r"""
directory:
  description: Where it was written.
  returned: success
  type: str
  sample: /home/me/.ssh/portknock
hosts:
  description: The hosts that ssh knocks at.
  returned: success
  type: list
  elements: str
left_out:
  description: The hosts behind doors for which ssh cannot knock by itself, and why.
  returned: success
  type: dict
messages:
  description: What is left to do, which hosts are left out, and which are no longer in it.
  returned: success
  type: list
  elements: str
"""
