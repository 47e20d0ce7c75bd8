#!/bin/bash
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Throwaway hosts: containers with systemd and sshd, built here, for bin/demo, bin/test and
# molecule. Sourced, or called as: bin/lib/hosts.sh FUNCTION ARGUMENT...

HOSTS_LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
HOSTS_CACHE=$(cd "$HOSTS_LIB/../.." && pwd)/.cache
HOSTS_STATE=${TMPDIR:-/tmp}/sesame.portknock-$(id -u)
HOSTS_LABEL=sesame.portknock.host

say() { printf '%s\n' "   $*" >&2; }

fail() {
    printf '%s\n' "error: $*" >&2
    return 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "'$1' needs root: run this as root, or install sudo"
    fi
}

hosts_state_dir() {
    (umask 077 && mkdir -p "$HOSTS_STATE/users" "$HOSTS_CACHE") || return 1
    [ -O "$HOSTS_STATE" ] || fail "$HOSTS_STATE belongs to another user: set TMPDIR to a directory of yours"
}

# --- Packages of this machine -----------------------------------------------------------

# apt_ensure COMMAND:PACKAGE... installs the packages whose command is missing.
apt_ensure() {
    local pair missing=()
    for pair in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || {
        fail "please install first: ${missing[*]} (this machine has no apt-get)"
        return 1
    }
    say "installing ${missing[*]} (apt-get)"
    apt_install "${missing[@]}"
}

# Several checks of bin/test install at the same time, and this machine may have an apt-get of its own at work: wait for both.
apt_install() {
    hosts_state_dir || return 1
    (
        flock 8
        apt_install_alone "$@" 8>&-
    ) 8>"$HOSTS_STATE/apt.lock"
}

apt_install_alone() {
    local log
    log=$(mktemp)
    as_root apt-get update >"$log" 2>&1 || say "apt-get update had errors, going on with what is known"
    if as_root env DEBIAN_FRONTEND=noninteractive apt-get --option DPkg::Lock::Timeout=600 \
        install --yes --no-install-recommends "$@" >>"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "apt-get could not install: $*"
}

# Newer releases have the docker command in a package of its own.
docker_packages() {
    if apt-cache show docker-cli >/dev/null 2>&1; then
        echo "docker.io docker-cli"
    else
        echo "docker.io"
    fi
}

docker_install() {
    local PATH=$PATH:/usr/sbin:/sbin
    command -v docker >/dev/null && command -v dockerd >/dev/null && return 0
    [ -z "${DOCKER_HOST:-}" ] || {
        fail "no docker daemon answers at DOCKER_HOST=$DOCKER_HOST"
        return 1
    }
    command -v apt-get >/dev/null || {
        fail "please install docker first (this machine has no apt-get)"
        return 1
    }
    as_root apt-get update >/dev/null 2>&1
    say "installing docker (apt-get)"
    # shellcheck disable=SC2046 # a list of package names
    apt_install $(docker_packages)
}

# --- The docker daemon ------------------------------------------------------------------

docker_cmd() {
    if [ -z "${HOSTS_DOCKER:-}" ]; then
        HOSTS_DOCKER=as_root
        ! docker info >/dev/null 2>&1 || HOSTS_DOCKER="command"
    fi
    "$HOSTS_DOCKER" docker "$@"
}

docker_answers() { docker info >/dev/null 2>&1 || as_root docker info >/dev/null 2>&1; }

docker_start_by_hand() {
    local try log=$HOSTS_STATE/dockerd.log
    as_root true || return 1
    # A group of its own: Ctrl-C in this terminal must not take the daemon away before its
    # containers are gone. The lock's descriptor is closed, or it would keep the lock.
    as_root env PATH="$PATH:/usr/sbin:/sbin" setsid dockerd --pidfile "$HOSTS_STATE/dockerd.pid" \
        >"$log" 2>&1 </dev/null 9>&- &
    # shellcheck disable=SC2034 # only counts
    for try in $(seq 1200); do
        docker_answers && return 0
        sleep 0.5
    done
    tail -n 5 "$log" >&2
    fail "the docker daemon did not start within ten minutes; its log is $log"
}

docker_start() {
    if [ -d /run/systemd/system ]; then
        say "starting the docker daemon (systemctl start docker)"
        as_root systemctl start docker && touch "$HOSTS_STATE/dockerd.unit"
    else
        say "starting the docker daemon (dockerd, stopped again at the end)"
        docker_start_by_hand
    fi
}

docker_stop() {
    local pid tries
    if [ -e "$HOSTS_STATE/dockerd.unit" ]; then
        as_root systemctl stop docker.service docker.socket
    elif [ -s "$HOSTS_STATE/dockerd.pid" ]; then
        pid=$(cat "$HOSTS_STATE/dockerd.pid")
        as_root kill "$pid"
        for tries in $(seq 600); do
            as_root kill -0 "$pid" 2>/dev/null || break
            sleep 0.5
        done
        [ "$tries" -lt 600 ] || say "the docker daemon (pid $pid) is slow to stop"
    fi
    rm -f "$HOSTS_STATE/dockerd.unit" "$HOSTS_STATE/dockerd.pid"
}

# Users are registered by name; a number after the dot is the process that uses it.
docker_forget_dead_users() {
    local user pid
    for user in "$HOSTS_STATE"/users/*; do
        [ -e "$user" ] || continue
        pid=${user##*.}
        case $pid in
            '' | *[!0-9]*) continue ;;
        esac
        kill -0 "$pid" 2>/dev/null || rm -f "$user"
    done
}

# docker_acquire USER: makes sure that a docker daemon runs, and notes who needs it.
docker_acquire() {
    hosts_state_dir || return 1
    docker_answers || docker_install || return 1
    (
        flock 9
        docker_forget_dead_users
        touch "$HOSTS_STATE/users/$1"
        docker_answers && exit 0
        rm -f "$HOSTS_STATE/dockerd.pid" "$HOSTS_STATE/dockerd.unit"
        docker_start
    ) 9>"$HOSTS_STATE/lock"
}

# docker_release USER: stops the daemon, if it was started here and nothing else needs it.
docker_release() {
    hosts_state_dir || return 1
    (
        flock 9
        rm -f "$HOSTS_STATE/users/$1"
        docker_forget_dead_users
        [ -z "$(ls -A "$HOSTS_STATE/users")" ] || exit 0
        docker_stop
    ) 9>"$HOSTS_STATE/lock"
}

# --- Images -----------------------------------------------------------------------------

image_suite() {
    case $1 in
        debian-11) echo bullseye ;;
        debian-12 | debian-12-docker | el-standin) echo bookworm ;;
        debian-13 | debian-13-docker) echo trixie ;;
        *) fail "no image is called '$1': debian-11, debian-12, debian-13, debian-12-docker, debian-13-docker, el-standin" ;;
    esac
}

image_recipe() {
    case $1 in
        el-standin) echo el-standin ;;
        *) echo debian ;;
    esac
}

image_packages() { # RECIPE KIND
    sed -n "s/^$2 //p" "$HOSTS_LIB/images/packages-$1" | paste -sd "$3" -
}

# The mirror this machine takes Debian's packages from; nothing where it is no Debian.
host_mirror() {
    # shellcheck disable=SC2016 # the fields are apt's, not the shell's
    apt-get indextargets --format '$(ORIGIN)/$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        sed -n 's|^Debian/Debian ||p' | head -n 1
}

# What an image is made of: it is built anew when any of this changes.
image_hash() {
    local name=$1 recipe kernel=any
    case $name in
        *-docker)
            {
                image_hash "${name%-docker}"
                cat "$HOSTS_LIB/images/Dockerfile.docker"
                declare -f image_build_docker
            } | sha256sum | cut -c1-16
            return
            ;;
    esac
    recipe=$(image_recipe "$name")
    [ "$recipe" != el-standin ] || kernel=$(uname -r)
    {
        image_suite "$name"
        echo "$kernel"
        cd "$HOSTS_LIB/images" &&
            find Dockerfile "packages-$recipe" "setup-$recipe" setup-common "$recipe" -type f -print0 2>/dev/null |
            sort -z | xargs -0 cat
        declare -f image_build image_build_here
    } | sha256sum | cut -c1-16
}

image_build_here() { # NAME TAG HASH
    local suite recipe repository setup mirror
    suite=$(image_suite "$1") && recipe=$(image_recipe "$1")
    repository=$(image_packages "$recipe" repository ' ')
    setup=$HOSTS_LIB/images
    mirror=$(host_mirror)
    # shellcheck disable=SC2016 # mmdebstrap's own variables, in its hooks
    as_root mmdebstrap --quiet --variant=minbase --skip=cleanup/apt --include="$(image_packages "$recipe" system ,)" \
        --customize-hook='[ -z "'"$repository"'" ] || APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes -qq --download-only --option APT::Install-Recommends=true install '"$repository" \
        --customize-hook="mkdir -p \"\$1/root/setup\" && cp -r '$setup/.' \"\$1/root/setup/\"" \
        --customize-hook="chroot \"\$1\" /root/setup/setup-common" \
        --customize-hook="chroot \"\$1\" /root/setup/setup-$recipe /root/setup/$recipe" \
        --customize-hook='rm -rf "$1/root/setup"' \
        "$suite" - ${mirror:+"$mirror"} |
        docker_cmd import --change "LABEL sesame.portknock.recipe=$3" --change 'CMD ["/sbin/init"]' - "$2" >/dev/null
}

image_build_from_registry() { # NAME TAG HASH
    local recipe
    recipe=$(image_recipe "$1")
    docker_cmd build --quiet --label "sesame.portknock.recipe=$3" --tag "$2" \
        --build-arg "BASE=${PORTKNOCK_BASE:-debian:$(image_suite "$1")}" \
        --build-arg "RECIPE=$recipe" \
        --build-arg "SYSTEM=$(image_packages "$recipe" system ' ')" \
        --build-arg "REPOSITORY=$(image_packages "$recipe" repository ' ')" \
        "$HOSTS_LIB/images" >/dev/null
}

# A layer on the image of that release, by a function of its own: image_build is part of what every image is made of.
image_build_docker() { # NAME TAG HASH
    local base mirror
    base=$(image_ensure "${1%-docker}") || return 1
    mirror=$(host_mirror)
    docker_cmd build --quiet --network host --label "sesame.portknock.recipe=$3" --tag "$2" --build-arg "BASE=$base" \
        --build-arg "MIRROR=${mirror:-http://deb.debian.org/debian}" --build-arg "SUITE=$(image_suite "$1")" \
        - <"$HOSTS_LIB/images/Dockerfile.docker" >/dev/null
}

image_build() { # NAME TAG HASH
    if apt_ensure mmdebstrap:mmdebstrap && image_keyring; then
        (set -o pipefail && image_build_here "$@")
    else
        say "no mmdebstrap here, taking Debian's official image from a registry"
        image_build_from_registry "$@"
    fi
}

# Ubuntu does not know Debian's keys by itself.
image_keyring() {
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || apt_install debian-archive-keyring
}

image_is_current() { # TAG HASH
    [ "$(docker_cmd image inspect --format '{{index .Config.Labels "sesame.portknock.recipe"}}' "$1" 2>/dev/null)" = "$2" ]
}

image_build_named() { # NAME TAG HASH
    case $1 in
        *-docker) image_build_docker "$@" ;;
        *) image_build "$@" ;;
    esac
}

# image_foreign IMAGE: one that was made elsewhere; it must be here or in a registry.
image_foreign() {
    docker_cmd image inspect "$1" >/dev/null 2>&1 || docker_cmd pull --quiet "$1" >/dev/null ||
        fail "the image '$1' is neither here nor can it be pulled (PORTKNOCK_IMAGE)"
}

# image_ensure NAME prints the tag of an image that is there and of the newest recipe.
# NAME may also be an image made elsewhere, as PORTKNOCK_IMAGE is.
image_ensure() {
    local name=$1 tag=portknock-test:$1 hash old
    if ! image_suite "$name" >/dev/null 2>&1; then
        image_foreign "$name" && echo "$name"
        return
    fi
    hosts_state_dir || return 1
    hash=$(image_hash "$name")
    (
        flock 9
        image_is_current "$tag" "$hash" && exit 0
        say "building the image $tag (once; about a minute)"
        old=$(docker_cmd image inspect --format '{{.Id}}' "$tag" 2>/dev/null)
        image_build_named "$name" "$tag" "$hash" && image_is_current "$tag" "$hash" || {
            fail "could not build the image $tag: see above"
            exit 1
        }
        [ -z "$old" ] || docker_cmd image rm "$old" >/dev/null 2>&1 || true
    ) 9>"$HOSTS_STATE/image-$name.lock" || return 1
    echo "$tag"
}

# --- Hosts ------------------------------------------------------------------------------

have_ipv6() { [ "$(cat /proc/sys/net/ipv6/conf/all/disable_ipv6 2>/dev/null)" = 0 ]; }

network_ensure() { # NAME
    local id options=()
    docker_cmd network inspect "$1" >/dev/null 2>&1 && return 0
    if have_ipv6; then
        # Unique local addresses, the same ones for the same name.
        id=$(printf '%s' "$1" | sha256sum | cut -c1-14)
        options=(--ipv6 --subnet "fd${id:0:2}:${id:2:4}:${id:6:4}:${id:10:4}::/64")
    fi
    docker_cmd network create --label "$HOSTS_LABEL=1" "${options[@]}" "$1" >/dev/null
}

# systemd of Debian 13 runs on the cgroups of older machines only with these variables.
host_create() { # NAME IMAGE
    # The kernel answers only one refused packet a second and address, which is of no use to
    # tests that look at closed ports all the time.
    local sysctl=(--sysctl net.ipv4.icmp_ratelimit=0)
    host_remove "$1"
    network_ensure "$1" || return 1
    ! have_ipv6 || sysctl+=(--sysctl net.ipv6.conf.all.disable_ipv6=0 --sysctl net.ipv6.icmp.ratelimit=0)
    docker_cmd run --detach --name "$1" --hostname "$1" --network "$1" --label "$HOSTS_LABEL=1" \
        --tmpfs /run --tmpfs /run/lock --tmpfs /tmp \
        --volume /sys/fs/cgroup:/sys/fs/cgroup:rw --cgroupns host \
        --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add NET_RAW "${sysctl[@]}" \
        --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
        --env container=docker \
        --env 'SYSTEMD_PROC_CMDLINE=systemd.legacy_systemd_cgroup_controller=1 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1' \
        --stop-signal SIGRTMIN+3 "$2" /sbin/init >/dev/null || return 1
    host_wait "$1"
}

# host_wait NAME: until systemd says that booting is over, well or not.
host_wait() {
    local state look end=$((SECONDS + 600))
    # Asked once systemd answers, it waits itself, where it is not of EL 8: many calls of docker take longer than the boot.
    look='timeout 20 systemctl is-system-running --wait || systemctl is-system-running'
    while ((SECONDS < end)); do
        state=$(docker_cmd exec "$1" sh -c "$look" 2>/dev/null)
        state=${state##*$'\n'}
        case $state in
            running | degraded) return 0 ;;
        esac
        sleep 0.25
    done
    docker_cmd logs "$1" 2>&1 | tail -n 20 >&2
    fail "the throwaway host $1 did not boot within ten minutes (systemd says '${state:-nothing}')"
}

host_reboot() { # NAME
    docker_cmd restart --time 20 "$1" >/dev/null && host_wait "$1"
}

host_address() { # NAME [ipv6]
    local field=IPAddress
    [ "${2:-}" != ipv6 ] || field=GlobalIPv6Address
    docker_cmd inspect --format "{{range .NetworkSettings.Networks}}{{.$field}}{{end}}" "$1"
}

host_remove() { # NAME
    docker_cmd rm --force --volumes "$1" >/dev/null 2>&1
    docker_cmd network rm "$1" >/dev/null 2>&1
    return 0
}

# --- The collection in this checkout ----------------------------------------------------

# Ansible finds a collection by its directories' names; the link gives the checkout such.
collection_link() {
    local checkout
    checkout=$(cd "$HOSTS_LIB/../.." && pwd)
    mkdir -p "$checkout/.build/ansible_collections/sesame"
    ln -sfn ../../.. "$checkout/.build/ansible_collections/sesame/portknock"
    echo "$checkout/.build"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    "$@"
fi
