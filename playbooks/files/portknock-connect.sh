#!/usr/bin/env bash
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What ssh calls to connect to a host behind a door, where there is no python3: bash portknock-connect.sh NAME HOST PORT
# Knocks, connects, knocks again if that was not let in, and then copies between ssh and the connection. Where it does not
# get in at all, it says why, as far as that can be told from here. The steps are in the file `knocks` beside this one, a
# line for each host: NAME ENGINE PAUSE HOST_TO_KNOCK_AT_OR_- STEP... where the engine is what recognises the knock.
# For bash 3.2 and later, with what Linux and macOS both have.

set -u
# What bash says of a connection that failed is compared.
export LC_ALL=C

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P) || exit 1
TRIES=5
# Seconds for all of it where ssh has no ConnectTimeout, and of these for finding out why it did not open.
LIMIT=10 LOOK=2
# Seconds after which no new try begins where the port answers each time that it is closed.
ANSWERED=3
# Tenths of a second for an address to answer, and for the server to say something. Of several addresses each has ten in the
# first try, and ten more in each that follows: one that never answers must not take the time that the door is open.
CONNECT_PATIENCE=30
PATIENCE=60
# What an engine needs, as in ENGINES of _knock.py: seconds after the last step, and whether it keeps broken knocks.
SETTLE=0
KEEPS_BROKEN_KNOCKS=

# What has begun as an ssh server ends with one line of ssh, what has said nothing with two.
complain() {
    printf 'portknock: %s\n' "$1" >&2
    [[ -t 1 ]] || printf 'SSH-2.0-portknock\r\n'
    exit 1
}

read_knock() {
    local found rest
    while read -r found ENGINE PAUSE KNOCK_HOST rest; do
        [[ $found == "$NAME" ]] || continue
        read -r -a STEPS <<<"$rest"
        [[ $KNOCK_HOST != - ]] || KNOCK_HOST=$HOST
        case $ENGINE in
            knockd) SETTLE=0.1 KEEPS_BROKEN_KNOCKS=yes ;;
        esac
        return
    done <"$HERE/knocks"
    complain "$NAME is not in $HERE/knocks. Run the playbook sesame.portknock.client_config again."
}

# One address a line; a name where it cannot be looked up here; bash then does it when it connects.
addresses_of() {
    local address kind rest found=""
    if command -v getent >/dev/null; then
        while read -r address kind rest; do
            [[ $kind == STREAM ]] && echo "$address" && found=yes
        done < <(getent ahosts "$1")
    fi
    [[ -n $found ]] || echo "$1"
}

# Steps of two ssh at once to the same host would mix. A lock that is never released is ignored after three seconds.
lock() {
    local turn
    for ((turn = 0; turn < 30; turn++)); do
        mkdir "$HERE/lock-$NAME" 2>/dev/null && return
        sleep 0.1
    done
}

unlock() { rmdir "$HERE/lock-$NAME" 2>/dev/null; }

# The steps of the first try, and of each further one: some engines keep what arrived of a knock whose end got lost, and the
# last step, sent before the first, completes or breaks it. Without that the next knock fails for certain. Every fourth
# further one is plain, because a door may have a close knock that the others would begin each time.
steps_of_try() {
    local count=${#STEPS[@]}
    [[ $((($1 - 1) % 4)) == 0 || -z $KEEPS_BROKEN_KNOCKS || $count == 1 ]] || echo "${STEPS[count - 1]}"
    printf '%s\n' "${STEPS[@]}"
}

# TRY ADDRESS...: sends each step to all of them.
send_steps() {
    local step address sent=() try=$1
    shift
    for step in $(steps_of_try "$try"); do
        sent=()
        for address; do
            if [[ $step == */udp ]]; then
                printf '\0' >"/dev/udp/$address/${step%/*}"
            else
                # A connect to a port that drops hangs, and would send its SYN again after a second: it is ended before.
                (exec 3<>"/dev/tcp/$address/${step%/*}") &
                sent+=($!)
            fi
        done
        sleep "$PAUSE"
        ((${#sent[@]} == 0)) || kill "${sent[@]}"
    done
}

# Such an engine has one list of attempts for all addresses, and forgets all of them when the first one ends: one after the other.
knock() {
    local address
    lock
    if [[ -n $KEEPS_BROKEN_KNOCKS ]]; then
        for address in $KNOCK_AT; do
            send_steps "$1" "$address"
        done
        sleep "$SETTLE"
    else
        # shellcheck disable=SC2086 # a list of addresses
        send_steps "$1" $KNOCK_AT
    fi
    unlock
} 2>/dev/null

# The seconds that ssh gives a connection (ConnectTimeout), if it can be asked: ssh tells a ProxyCommand nothing of it. It is
# asked only if the port has not opened at once.
ask_ssh() {
    local words=() word key value
    [[ -z $ASKED ]] || return
    ASKED=yes
    [[ $(readlink "/proc/$PPID/exe") == */ssh ]] || return
    while IFS= read -r -d '' word; do
        words+=("$word")
    done <"/proc/$PPID/cmdline"
    while read -r key value; do
        [[ $key != connecttimeout || $value != [1-9]* ]] || LIMIT=$value
    done < <("${words[0]}" -G "${words[@]:1}" </dev/null)
    ((LIMIT > 5)) || LOOK=1
} 2>/dev/null

# Connects, waits for the server's first line, reports it to the shell above, and copies until one side ends.
attempt() {
    local line reader writer
    exec 3<>"/dev/tcp/$1/$PORT" || exit 1
    kill -USR2 $$
    IFS= read -r -u 3 line || exit 1
    kill -USR1 $$
    # "Not allowed at this time", "Exceeded MaxStartups": ssh does not show it.
    [[ $line == SSH-* ]] || printf 'portknock: %s says: %s\n' "$HOST" "${line//[![:print:]]/}" >&6
    printf '%s\n' "$line"
    cat <&3 6>&- &
    reader=$!
    # What waits for more from ssh must not hold what ssh reads from: it would not see that the server has ended.
    {
        cat <&5
        kill "$reader"
    } >&3 6>&- &
    writer=$!
    exec 3>&- 5<&- 6>&-
    wait "$reader"
    kill "$writer"
} 2>/dev/null

# ADDRESS TENTHS: returns only if it did not get in, with the REASON.
connect_to() {
    local turn child tenths=$2
    CONNECTED=""
    attempt "$1" <&5 &
    child=$!
    for ((turn = 0; turn < tenths; turn++)); do
        [[ -z $CONNECTED ]] || tenths=$PATIENCE
        if [[ -n $IN ]]; then
            wait "$child"
            exit
        fi
        kill -0 "$child" 2>/dev/null || break
        if ((turn >= 5)); then
            ask_ssh
            ((SECONDS < LIMIT - LOOK)) || break
        fi
        sleep 0.1
    done
    REASON=refused
    ((turn < 15)) || REASON=unreachable
    # It may have got in with the last of its time.
    kill "$child" 2>/dev/null && REASON=silent
    wait "$child" 2>/dev/null
    [[ -z $IN ]] || exit 1
    if [[ -n $CONNECTED ]]; then
        [[ $REASON == silent ]] && REASON=mute || REASON=hung_up
    fi
}

# How many ICMP errors of the kind "unreachable" this machine has received; nothing where the system does not count them.
icmp_errors() {
    local words=() name value number="" at=0
    while read -r -a words; do
        [[ ${words[0]} == Icmp: ]] || continue
        ((at == 0)) || number=${words[at]}
        for at in "${!words[@]}"; do
            [[ ${words[at]} != InDestUnreachs ]] || break
        done
    done </proc/net/snmp
    while read -r name value; do
        [[ $name != Icmp6InDestUnreachs ]] || number+="+$value"
    done </proc/net/snmp6
    echo "$number"
} 2>/dev/null

# ADDRESS PORT [TENTHS]: prints what becomes of a port, in the words of _probe.py as far as bash can tell: open, reset, icmp (as the
# host's own firewall says), filtered (as any firewall says), refused (it cannot tell how), unreachable or silent.
look() {
    local turn child before why tenths=${3:-$((LOOK * 10 - 5))}
    before=$(icmp_errors)
    (exec 3<>"/dev/tcp/$1/$2") 2>"$WHY" &
    child=$!
    for ((turn = 0; turn < tenths; turn++)); do
        kill -0 "$child" 2>/dev/null || break
        sleep 0.1
    done
    kill "$child" 2>/dev/null && echo silent && return
    wait "$child" 2>/dev/null && echo open && return
    why=$(<"$WHY")
    case $why in
        *refused*)
            if [[ -z $before ]]; then
                echo refused
            elif [[ $before == "$(icmp_errors)" ]]; then
                echo reset
            else
                echo icmp
            fi
            ;;
        *"No route to host"* | *"Permission denied"*) echo filtered ;;
        *) echo unreachable ;;
    esac
}

# ADDRESS: whether this machine has a route to it; nothing is sent for that.
routed() { { :; } 3<>"/dev/udp/$1/9"; } 2>/dev/null

# ADDRESS: prints yes if it answers ping, no if it does not, nothing if that is not known.
answers_ping() {
    local turn child
    command -v ping >/dev/null || return
    ping -c 1 "$1" >/dev/null 2>&1 &
    child=$!
    for ((turn = 0; turn < LOOK * 10 - 5; turn++)); do
        kill -0 "$child" 2>/dev/null || break
        sleep 0.1
    done
    kill "$child" 2>/dev/null && echo no && return
    wait "$child" 2>/dev/null
    case $? in
        0) echo yes ;;
        1) echo no ;;
    esac
}

# ADDRESS REASON: prints the verdict, one of those that meaning() knows, as verdict() of _answers.py.
verdict() {
    local answer=silent closed="" step last="" alive tenths=""
    case $2 in mute | hung_up) echo "$2" && return ;; esac
    for step in "${STEPS[@]}"; do
        [[ $step != */tcp ]] || last=${step%/*}
    done
    # Where there seems to be no host, another look would again hear nothing: it must not take it beyond five seconds.
    [[ $2 != unreachable ]] || ((TRY == 1 && SECONDS < 4)) || tenths=5
    [[ $2 == silent ]] || answer=$(look "$1" "$PORT" $tenths)
    case $2:$answer in
        *:open) echo late ;;
        # A host that has refused a lot by ICMP waits before it refuses again.
        *:icmp | refused:silent) echo closed ;;
        *:filtered) echo filtered ;;
        *:unreachable | unreachable:silent)
            if routed "$1"; then echo down; else echo no_route; fi
            ;;
        *:reset | *:refused)
            [[ -z $last ]] || closed=$(look "$1" "$last")
            case $closed in
                icmp | filtered | silent) echo no_listener ;;
                *) if [[ $answer == reset ]]; then echo reset; else echo perhaps; fi ;;
            esac
            ;;
        *)
            exec 4< <(answers_ping "$1")
            [[ -z $last ]] || closed=$(look "$1" "$last")
            read -r alive <&4
            case $closed:$alive in
                *:yes | reset:* | refused:* | icmp:*) echo dropped ;;
                *:no) echo silent ;;
                *) echo unknown ;;
            esac
            ;;
    esac
}

# VERDICT: prints what it means, in the words of MEANINGS in _answers.py.
meaning() {
    case $1 in
        late) echo "it is open now, so the door opened after the last try" ;;
        no_route) echo "this machine has no route to it" ;;
        down) echo "no host answers at this address: it is down, or the address is not its own" ;;
        on_the_way) echo "a router or firewall on the way refuses it by ICMP, not the host" ;;
        closed) echo "the host refuses it by ICMP, as a closed door does: it did not accept the knock" ;;
        filtered) echo "a firewall refuses it by ICMP: perhaps the host's, as a closed door does, perhaps one on the way" ;;
        no_listener) echo "the door is open, but nothing listens behind it: the port is refused in another way than closed \
ports are" ;;
        reset) echo "it is refused by a TCP reset: perhaps the door is closed and refuses so, as the host did not accept \
the knock, perhaps the door is open and nothing listens behind it" ;;
        perhaps) echo "it is refused: perhaps the host did not accept the knock, perhaps the door is open and nothing \
listens behind it" ;;
        dropped) echo "the host is up, but this port does not answer, as a door that drops packets does while it is \
closed: the host did not accept the knock, or a firewall on the way drops the packets" ;;
        silent) echo "nothing answers, not even to ping: perhaps the host is down, perhaps a firewall drops the packets, \
perhaps the host did not accept the knock" ;;
        unknown) echo "nothing answers: perhaps the host is down, perhaps a firewall drops the packets, perhaps the host \
did not accept the knock" ;;
        mute) echo "it accepts the connection and then sends nothing: what listens there hangs, or is no ssh server" ;;
        hung_up) echo "it accepts the connection and closes it at once: the ssh server does not take this address for now \
(MaxStartups, PerSourcePenalties), or the port is forwarded to where nothing listens" ;;
    esac
}

# REASON...: says why it did not open, one reason for each of the addresses.
explain() {
    local address each text="" first="" knocks advice="" differ=""
    WHY=$(mktemp) || WHY=/dev/null
    trap '[[ $WHY == /dev/null ]] || rm -f "$WHY"' EXIT
    for address in $ADDRESSES; do
        each=$(verdict "$address" "$1")
        shift
        case $each in closed | filtered | reset | perhaps | dropped | silent | unknown) advice=yes ;; esac
        [[ -z $first || $each == "$first" ]] || differ=yes
        first=${first:-$each}
        text+="${text:+; }$address: $(meaning "$each")"
    done
    [[ -n $differ ]] || text=$(meaning "$first")
    knocks="$TRY knock"
    ((TRY == 1)) || knocks+=s
    [[ -z $advice ]] || advice=" Has the knock changed? Then run the playbook sesame.portknock.client_config again."
    complain "no connection to port $PORT of $HOST after $knocks: $text.$advice"
}

# Ends where nothing can be sent to any of the addresses.
check_routes() {
    local address why=""
    for address in $KNOCK_AT; do
        routed "$address" && return
        why+="${why:+; }$address: $({ : 3<>"/dev/udp/$address/9"; } 2>&1 | sed -n '$s/.*: //p')"
    done
    complain "the knock cannot leave this machine ($why). Check the address, the routes and this machine's own firewall."
}

# Returns whether no other try is due: time is over, or all addresses have answered often enough that they are closed.
is_over() {
    ((TRY < TRIES)) || return 0
    ask_ssh
    ((SECONDS < LIMIT - LOOK)) || return 0
    case " $* " in
        *" silent "* | *" mute "*) return 1 ;;
        *" refused "* | *" hung_up "*) ((TRY > 1 && SECONDS >= ANSWERED)) ;;
        # There is no host, and no other knock would change that.
        *) return 0 ;;
    esac
}

main() {
    local address tenths reasons=()
    (($# == 3)) || complain "usage: portknock-connect.sh NAME HOST PORT"
    NAME=$1 HOST=$2 PORT=$3 IN="" ASKED=""
    read_knock
    KNOCK_AT=$(addresses_of "$KNOCK_HOST")
    check_routes
    trap 'IN=yes' USR1
    trap 'CONNECTED=yes' USR2
    exec 5<&0 6>&2
    for ((TRY = 1; ; TRY++)); do
        knock "$TRY"
        ADDRESSES=$(addresses_of "$HOST")
        tenths=$CONNECT_PATIENCE reasons=()
        [[ $ADDRESSES != *$'\n'* ]] || tenths=$((TRY < 3 ? TRY * 10 : CONNECT_PATIENCE))
        for address in $ADDRESSES; do
            connect_to "$address" "$tenths"
            reasons+=("$REASON")
        done
        is_over "${reasons[@]}" && break
        sleep "0.$TRY"
    done
    explain "${reasons[@]}"
}

main "$@"
