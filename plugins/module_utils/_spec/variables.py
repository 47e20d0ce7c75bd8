# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of the role: which names there are, and what their values may be. Pure; the controller runs it."""

from typing import Any, Callable, Collection, Dict, List, Mapping

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import (
    DEFAULTS,
    READERS,
    checked_options,
    spec_from_options,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.values import (
    DAY,
    check_given,
    nearest,
    read_flag,
    read_number,
)

PREFIX = "portknock_"

ROLE_ONLY: Dict[str, Callable[[Any, str], Any]] = {
    "verify": read_flag,
    "verify_wait": lambda value, path: read_number(value, path, 0, DAY),
}
"""Every variable of the role that is no option of knock_ruleset, without the prefix, to what checks its value."""

_OF_REMOVAL = ("guard", "guard_timeout")
_RESULT = ("changed", "failed")


def unknown_names(
    variables: Mapping[str, Any], known: Collection[str], of_playbooks: Collection[str], made: Collection[str]
) -> List[str]:
    """Return a sentence for each variable that looks like one of the role's and is none.

    What a task registered is let be, and what a play makes with set_fact, if its name is not near that of one of ours.

    :param variables: every variable that the play knows for the host, by its name.
    :param known: the role's variables.
    :param of_playbooks: variables that only playbooks of the collection use.
    :param made: names that tasks of this run registered or set.
    """
    ours = {name[len(PREFIX) :]: name for name in [*known, *of_playbooks]}
    found = []
    for name in sorted(variables):
        near = nearest(name[len(PREFIX) :], ours) if name.startswith(PREFIX) else _mistyped_prefix(name, ours)
        if name in ours.values() or _is_result(variables[name]) or not (near or name.startswith(PREFIX)):
            continue
        if near or name not in made:
            found.append(f"{name}: there is no such variable. {f'Did you mean {ours[near]}?' if near else _OWN_NAMES}")
    return found


def _mistyped_prefix(name: str, ours: Collection[str]) -> str:
    """Return the name without its prefix where that is nearly ours and the rest is a name of ours, else ''."""
    if name[:1] not in ("p", "P"):
        return ""
    rest = next((short for short in ours if name.endswith("_" + short)), "")
    prefix = name[: -len(rest)].lower().replace("_", "")
    return rest if rest and nearest(prefix, [PREFIX[:-1]], _NEARLY_THE_PREFIX) else ""


_NEARLY_THE_PREFIX = 0.88
"""``portnock`` is; ``portlock``, which may be another's, is not."""
_OWN_NAMES = f"Names that begin with {PREFIX} are this role's: give a variable of your own another one."


def _is_result(value: Any) -> bool:
    """Return whether a value is what a task returned."""
    return isinstance(value, Mapping) and any(key in value for key in _RESULT)


def check_values(values: Mapping[str, Any]) -> None:
    """Check the values of the role's variables; of a removal only those that it uses.

    :param values: name without the prefix to value; what is missing has its default.
    :raises SpecError: for the first thing that cannot be.
    """
    options = {name: value for name, value in values.items() if name in DEFAULTS}
    state = options.get("state", DEFAULTS["state"])
    check_given(state, f"{PREFIX}state")
    if READERS["state"](state, f"{PREFIX}state") == "absent":
        checked_options({name: options[name] for name in _OF_REMOVAL if name in options}, PREFIX)
        return
    spec_from_options(options, PREFIX)
    for name, read in ROLE_ONLY.items():
        if name in values:
            check_given(values[name], PREFIX + name)
            read(values[name], PREFIX + name)


def variables_problem(
    variables: Mapping[str, Any],
    values: Callable[[], Mapping[str, Any]],
    known: Collection[str],
    of_playbooks: Collection[str] = (),
    made: Collection[str] = (),
) -> str:
    """Return what is wrong with the role's variables, '' where nothing is.

    :param values: returns the values for check_values(); asked for once all names are known.
    The rest is as for unknown_names().
    """
    unknown = unknown_names(variables, known, of_playbooks, made)
    if unknown:
        return " ".join(unknown)
    try:
        check_values(values())
    except SpecError as error:
        return str(error)
    return ""


__all__ = ("PREFIX", "ROLE_ONLY", "check_values", "unknown_names", "variables_problem")
