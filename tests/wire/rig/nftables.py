# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's table of nftables on the target, made by its own core and loaded with nft."""

import re
from typing import Any

from rig.lan import Namespace
from rig.target import use_collection

use_collection()
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, read_listing  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.elements import Element, read_elements  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import (  # noqa: E402
    Installed,
    read_installed,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import (  # noqa: E402
    absent_text,
    change_text,
    load_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options  # noqa: E402

NFTABLES = "nftables"
"""The engine; the option does not take it yet."""


class Table:
    """The table in a namespace."""

    def __init__(self, namespace: Namespace) -> None:
        """Take the namespace."""
        self._namespace = namespace

    def items(self) -> list[Item]:
        """Return all that nft lists."""
        return read_listing(self._namespace.run("nft", "-j", "list", "ruleset").stdout) or []

    def installed(self) -> Installed | None:
        """Return the table as it is."""
        return read_installed(self.items())

    def load(self, text: str) -> None:
        """Load a text in one transaction."""
        self._namespace.run("nft", "-f", "/dev/stdin", stdin=text)

    def apply(self, **options: Any) -> str:
        """Have the table of some options in place of what is there, and return the transaction."""
        installed = self.installed()
        if options.get("state") == "absent":
            text = absent_text(installed)
        else:
            text = change_text(load_text(build_table(spec_from_options(options))).text, installed)
        if text:
            self.load(text)
        return text

    def remove(self) -> None:
        """Take the table out, if it is there."""
        self._namespace.run("nft", "delete", "table", *TABLE.split(), check=False)

    def elements(self, name: str) -> list[Element]:
        """Return the sources in a set."""
        return read_elements(self.items(), name)

    def listed(self, name: str) -> set[str]:
        """Return the sources that have knocked, for the name that their list has with xt_recent."""
        return {str(element.source) for element in self.elements(re.sub(r"^pk([46])_", r"open\1_", name))}

    def forget(self) -> None:
        """Forget who has knocked."""
        installed = self.installed()
        names = [name for name in installed.sets if name.startswith("open")] if installed else []
        self.load("".join(f"flush set {TABLE} {name}\n" for name in names))
