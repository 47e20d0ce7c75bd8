# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's lists of xt_recent, through the kernel's files in /proc."""

import contextlib
import os
import re
from typing import Any, Dict

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem
from ansible_collections.sesame.portknock.plugins.module_utils._paths import RECENT_LISTS

_OURS = re.compile(r"pk[46][._]")


class RecentLists:
    """Who has knocked."""

    def __init__(self, filesystem: Filesystem) -> None:
        """Take the host's files."""
        self._filesystem = filesystem

    def read(self) -> Dict[str, str]:
        """Return name to text of the lists."""
        try:
            names = sorted(name for name in os.listdir(RECENT_LISTS) if _OURS.match(name))
        except OSError:
            return {}
        return {name: self._filesystem.read(os.path.join(RECENT_LISTS, name)) for name in names}

    def put(self, name: str, address: Any) -> None:
        """Put an ``ipaddress`` address on one of the lists, as seen now.

        :raises HostError: if there is no such list.
        """
        try:
            with open(os.path.join(RECENT_LISTS, name), "w", encoding="ascii") as stream:
                stream.write(f"+{address}\n")
        except OSError as error:
            raise HostError(f"{RECENT_LISTS}/{name} cannot be written: {error.strerror}.") from error

    def clear(self, name: str) -> None:
        """Take everything off one of the lists."""
        with contextlib.suppress(OSError), open(os.path.join(RECENT_LISTS, name), "w", encoding="ascii") as stream:
            stream.write("/\n")

    def forget(self, name: str, address: Any) -> None:
        """Take an ``ipaddress`` address off one of the lists, if it is on it."""
        with contextlib.suppress(OSError), open(os.path.join(RECENT_LISTS, name), "w", encoding="ascii") as stream:
            stream.write(f"-{address}\n")

    def hide(self) -> None:
        """Make the files readable for root alone."""
        for name in self.read():
            os.chmod(os.path.join(RECENT_LISTS, name), 0o600)


__all__ = ("RecentLists",)
