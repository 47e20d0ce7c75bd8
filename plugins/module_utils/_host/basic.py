# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""AnsibleModule, for modules whose options hold steps of knocks."""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sesame.portknock.plugins.module_utils._redact import hidden_options


class SecretiveModule(AnsibleModule):
    """Shows no step in its invocation, also where core refuses the options before the module runs."""

    def fail_json(self, msg: Any, **kwargs: Any) -> Any:
        """Fail; the invocation shows no value that could hold a step."""
        kwargs["invocation"] = {"module_args": hidden_options(self.params, self.argument_spec)}
        super().fail_json(msg, **kwargs)


__all__ = ("SecretiveModule",)
