# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# A host of RHEL's kin for the scenario `default`: what any small server has, and no firewall.
ARG BASE
FROM ${BASE}
RUN dnf --assumeyes install systemd openssh-server python3 iproute iputils kmod procps-ng && dnf clean all
RUN systemctl enable sshd.service && systemctl mask getty@tty1.service console-getty.service dnf-makecache.timer \
    && ssh-keygen -A && mkdir -p -m 0700 /root/.ssh /var/log/journal
CMD ["/sbin/init"]
