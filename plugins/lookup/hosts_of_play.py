# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Chooses the hosts of the collection's playbooks, and fails where there are none."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hosts_of_play
short_description: The hosts of a playbook of this collection
version_added: 1.1.0
description:
  - Returns a pattern of hosts for a play, and fails if no host matches it, where ansible-core would end the play with a warning and
    the exit code 0.
  - PRIVATE to the collection's playbooks, it may change at any time.
author:
  - sesame.portknock contributors (@sesame)
options:
  _terms:
    description: A pattern of hosts, as one term.
    type: list
    elements: raw
    required: true
"""

EXAMPLES = r"""
- name: A play of the collection
  hosts: "{{ lookup('sesame.portknock.hosts_of_play', portknock_hosts | default('all')) }}"
"""

RETURN = r"""
_raw:
  description: The pattern, as it was given.
  type: list
  elements: raw
"""

from typing import Any

from ansible import context
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.sesame.portknock.plugins.plugin_utils.matching_hosts import no_hosts_problem


class LookupModule(LookupBase):
    """Returns the pattern for the hosts of a play."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """Return it as the only item.

        :raises AnsibleLookupError: if no host matches it.
        """
        self.set_options(var_options=variables, direct=kwargs)
        # ansible-lint and others check the syntax without any inventory.
        if not context.CLIARGS.get("syntax"):
            limit = context.CLIARGS.get("subset") or ""
            problem = no_hosts_problem((variables or {}).get("groups", {}), terms[0], limit)
            if problem:
                raise AnsibleLookupError(problem)
        return terms
