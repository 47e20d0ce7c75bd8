# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking for steps of a knock in a text that must show none."""

import re


def steps_in(steps, text):
    """Return the steps whose port stands in a text as a number of its own.

    Not as a part of another one: of a process id, a time, a size or an address.

    :param steps: ``PORT`` or ``PORT/PROTOCOL`` as text, a number, or a pair with the port first.
    """
    ports = [str(step[0] if isinstance(step, tuple) else step).partition("/")[0] for step in steps]
    assert ports and all(port.isdigit() for port in ports), ports
    return [port for port in ports if re.search(r"(?<![\w.:]){0}(?!\w|[.:]\d)".format(port), text)]
