# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of a task; unlike ansible-core's, no message of this file holds a value.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import checked_options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.values import did_you_mean


def read_ruleset_options(args: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Return the options of a ruleset with their defaults, each of its type, checked by the collection.

    :param args: what the task gives.
    :param known: the options that the task takes; those that do not describe a ruleset are left out.
    :raises SpecError: for the first option that is not valid; never shows a step.
    """
    _check_names(args, known)
    return checked_options({name: plain(value) for name, value in args.items()})


def read_options(action: ActionBase, argument_spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of another kind with their defaults, each of its type, checked by ansible-core.

    :raises SpecError: for the first option that is not valid.
    """
    args = action._task.args
    _check_names(args, argument_spec)
    with contextlib.suppress(AnsibleError):
        _result, options = action.validate_argument_spec(argument_spec)
        return options
    # Core's message repeats the value. Raised out here, this error is not chained to it.
    for name in sorted(args):
        if ArgumentSpecValidator({name: argument_spec[name]}).validate({name: args[name]}).error_messages:
            raise SpecError(name, f"is not valid. It must be of type {_type_of(argument_spec[name])}; see ansible-doc.")
    raise SpecError("options", "are not valid; see ansible-doc.")


def _check_names(args: Mapping[str, Any], known: Iterable[str]) -> None:
    names = sorted(known)
    for name in sorted(map(str, set(args) - set(names))):
        shown = name if name.isidentifier() else "an option"
        near = did_you_mean(shown, names)
        raise SpecError(shown, f"there is no such option.{near} The options are {', '.join(names)}.")


def _type_of(option: Mapping[str, Any]) -> str:
    elements = f" of {option['elements']}" if "elements" in option else ""
    return f"{option.get('type', 'str')}{elements}"


def given(args: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the task gives, as they were checked; a copy, as retries and loops come back to the task's own."""
    return {name: options.get(name, value) for name, value in args.items()}


def plain(value: Any) -> Any:
    """Return a value of ansible-core as Python's own: an encrypted text is no ``str`` in every release."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
