# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking for steps of a knock in a text that must show none, and may hold process ids, times, sizes and addresses."""

import re
from typing import Any, Iterable, List, Tuple, Union

# Numbers that say what they are, and are no step.
_OTHERS = re.compile(
    r"""
    ansible-(?:tmp|local)[\w.-]*                                      # a folder named by time and process id
    | \b[\w-]+\[[0-9]+\]:                                             # sshd[19100]:
    | \b(?:pid|uid|gid|inode|size|[acm]time|ended|began|since|deadline)\W{1,4}[0-9.]+
    | \b[0-9.]+[ ](?:bytes|s|seconds)\b
    | [0-9a-f:]*::[0-9a-f:]*                                          # an IPv6 address
    """,
    re.VERBOSE | re.IGNORECASE,
)


def steps_in(steps: Iterable[Union[str, int, Tuple[Any, ...]]], text: str) -> List[str]:
    """Return the steps whose port stands in a text as a number of its own.

    Not as a part of another one: of a process id, a time, a size, an address or a hexadecimal id.

    :param steps: ``PORT`` or ``PORT/PROTOCOL`` as text, a number, or a pair with the port first.
    """
    ports = [str(step[0] if isinstance(step, tuple) else step).partition("/")[0] for step in steps]
    assert ports and all(port.isdigit() for port in ports), ports
    rest = _OTHERS.sub(" ", text)
    return [port for port in ports if re.search(r"(?<![0-9A-Za-z.]){0}(?![0-9A-Za-z]|\.[0-9])".format(port), rest)]
