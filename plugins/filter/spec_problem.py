# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: spec_problem
short_description: Find what is wrong with the options of knock_ruleset
version_added: 1.0.0
author:
  - sesame.portknock contributors (@sesame)
description:
  - Checks options as M(sesame.portknock.knock_ruleset) does, on the controller, before anything is done to a host.
  - A step of a knock is never part of the message.
options:
  _input:
    description: The options by their names.
    type: dict
    required: true
  prefix:
    description: Put before each option's name in the message.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Check the doors first
  ansible.builtin.assert:
    that: problem == ''
    fail_msg: "{{ problem }}"
  vars:
    problem: "{{ {'doors': my_doors} | sesame.portknock.spec_problem(prefix='my_') }}"
"""

RETURN = r"""
_value:
  description: The first problem with the option that has it, or an empty string.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import DEFAULTS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options


def spec_problem(options: dict[str, Any], prefix: str = "") -> str:
    """Return the first problem of the options, or an empty string."""
    if not isinstance(options, dict):
        raise AnsibleFilterError("spec_problem takes a dictionary of options")
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        return f"{prefix}{unknown[0]}: there is no such option. The options are {', '.join(sorted(DEFAULTS))}."
    try:
        spec_from_options(options, prefix)
    except SpecError as error:
        return str(error)
    return ""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name to function."""
        return {"spec_problem": spec_problem}
