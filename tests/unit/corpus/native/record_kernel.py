# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints the rules of nftables as the kernel sends them, one in hexadecimal digits a line.

For the files beside this one it ran in the network namespaces of containers of Debian 11, 12 and 13: for iptables-*.json behind
record.sh, for forms.json behind each rule there, which nft had added to INPUT. Its argument is a family, ip or ip6.
"""

import sys

from ansible_collections.sesame.portknock.plugins.module_utils._host.nftables import Nftables

for body in Nftables().rules(sys.argv[1]):
    print(body.hex())
