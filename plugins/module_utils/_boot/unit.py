# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The unit by which a boot has the doors loaded, before the network is up. Pure."""

from ansible_collections.sesame.portknock.plugins.module_utils._paths import BOOT_SCRIPT

_UNIT_TEXT = """# Written by sesame.portknock; changes to this file are lost.
[Unit]
Description={description}
DefaultDependencies=no
After=local-fs.target systemd-modules-load.service {after}
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={script}

[Install]
WantedBy=multi-user.target
"""


def boot_unit(description: str, *after: str) -> str:
    """Return the text of our unit, which runs our script before the network is up.

    :param description: what systemctl calls it.
    :param after: the services whose rules must be there before.
    """
    return _UNIT_TEXT.format(description=description, after=" ".join(after), script=BOOT_SCRIPT)


__all__ = ("boot_unit",)
