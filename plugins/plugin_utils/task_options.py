# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of a task, checked by ansible-core; unlike core's, no message of this file holds a value.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options


def read_options(action: ActionBase, argument_spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task's options with their defaults, each of its type.

    :raises SpecError: for the first option that is not valid; never shows a step.
    """
    args = action._task.args
    for name in sorted(map(str, set(args) - set(argument_spec))):
        shown = name if name.isidentifier() else "an option"
        raise SpecError(shown, f"there is no such option. The options are {', '.join(sorted(argument_spec))}.")
    for name in sorted(args):
        if args[name] is None and argument_spec[name].get("type") == "raw":
            raise SpecError(name, "must be a list.")
    with contextlib.suppress(AnsibleError):
        _result, options = action.validate_argument_spec(argument_spec)
        return options
    # Core's message repeats the value, and a misplaced one may be a step. Raised out here, this error is not chained to it.
    raise _problem(args, argument_spec)


def _problem(args: Mapping[str, Any], argument_spec: Mapping[str, Any]) -> SpecError:
    try:
        spec_from_options(args)
    except SpecError as error:
        return SpecError(error.option, error.what)
    for name in sorted(args):
        if ArgumentSpecValidator({name: argument_spec[name]}).validate({name: args[name]}).error_messages:
            return SpecError(
                name, f"is not valid. It must be of type {_type_of(argument_spec[name])}; see ansible-doc."
            )
    return SpecError("options", "are not valid; see ansible-doc.")


def _type_of(option: Mapping[str, Any]) -> str:
    elements = f" of {option['elements']}" if "elements" in option else ""
    return f"{option.get('type', 'str')}{elements}"
