#!/usr/bin/env bash
# For horovodrun --host-discovery-script (give its absolute path): prints host:slots of every host of the hosts
# file that answers on its SSH port now, so that hosts may leave and come back while training goes on.
# HOSTS: another hosts file; SSH_PORT: another port; SECONDS_TO_ANSWER: how long a host may take.
set -uo pipefail
hosts=${HOSTS:-$(dirname "$(readlink -f "$0")")/hosts}
port=${SSH_PORT:-22}
answers() {
    # Host names come from the operator's own file; they are arguments here, never part of a command's text.
    timeout "${SECONDS_TO_ANSWER:-3}" bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$port" 2>/dev/null
}
while read -r host slots _; do
    case $host in '' | '#'*) continue ;; esac
    slots=${slots#slots=}
    # All at once: a host that is down must not delay the others.
    { answers "$host" && echo "$host:${slots:-1}"; } &
done < "$hosts"
wait
