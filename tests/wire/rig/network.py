# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts of one network."""

from typing import NamedTuple

from rig.peer import Peer
from rig.target import Target


class Rig(NamedTuple):
    """What a test works with."""

    target: Target
    client: Peer
    other: Peer
    backend: str
