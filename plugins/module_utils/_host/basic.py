# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""AnsibleModule, for modules whose options hold steps of knocks."""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sesame.portknock.plugins.module_utils._redact import hidden_options, without_numbers


class SecretiveModule(AnsibleModule):
    """Shows no step where core refuses the options before the module runs, nor in the invocation of a failure."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what AnsibleModule takes."""
        self._has_begun = False
        super().__init__(*args, **kwargs)
        self._has_begun = True

    def fail_json(self, msg: Any, **kwargs: Any) -> Any:
        """Fail; nothing in the result is a value that could hold a step."""
        if not self._has_begun:
            # Core's own words about an option, which repeat its value.
            msg = without_numbers(str(msg), self.argument_spec)
        kwargs["invocation"] = {"module_args": hidden_options(self.params, self.argument_spec)}
        super().fail_json(msg, **kwargs)


__all__ = ("SecretiveModule",)
