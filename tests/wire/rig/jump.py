# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The other host as a jump host."""

import contextlib
import time
from collections.abc import Iterator

from rig.network import Rig
from rig.packets import IPV4, IPV6

OTHER = {IPV4: "10.77.0.3", IPV6: "fd77::3"}
JUMP_SSHD = """
set -e
mount -t tmpfs tmpfs /run
mkdir /run/sshd
cp -p /etc/shadow /run/shadow
sed -i 's/^root:[^:]*:/root:*:/' /run/shadow
mount --bind /run/shadow /etc/shadow
exec /usr/sbin/sshd -D -e -f "$1"
"""


@contextlib.contextmanager
def jump_host(rig: Rig) -> Iterator[str]:
    """Within the block an sshd runs there; what the client sends to the target goes through it. Gives user@address."""
    folder = rig.target.folder
    config = folder / "sshd_config.jump"
    config.write_text(
        f"Port 22\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/id.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
        "PermitRootLogin prohibit-password\n"
    )
    with open(folder / "jump.log", "wb") as log:
        sshd = rig.other.namespace.start(
            "unshare", "--mount", "sh", "-c", JUMP_SSHD, "sh", config, stdout=log, stderr=log
        )
    for _turn in range(1000):
        if not rig.client.namespace.run("nc", "-z", OTHER[IPV4], "22", check=False).returncode:
            break
        time.sleep(0.05)
    else:
        raise RuntimeError(f"no sshd on the jump host: {(folder / 'jump.log').read_text()}")
    try:
        yield f"root@{OTHER[IPV4]}"
    finally:
        sshd.terminate()
        sshd.wait()
