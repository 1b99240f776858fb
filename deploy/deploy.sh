#!/bin/sh
# Install Imagedex on Debian or Ubuntu hosts over SSH, upgrade it, and go back.
set -eu

usage() {
    cat <<'END'
Usage: deploy.sh install  [OPTIONS] [USER@]HOST...
       deploy.sh rollback [OPTIONS] [USER@]HOST...
       deploy.sh status   [OPTIONS] [USER@]HOST...

install   Put this version on each host, one after the other, and start it. Doing it again does
          nothing but look whether it is ready. A version that does not become ready is left
          again: the one before runs then, with the database that it had.
rollback  Go back to the version before.
status    Say which versions are there and which one runs.

USER must be root or have sudo without a password. Host keys must be known already.

Options
  --wheel FILE          Install this wheel; else one is built from the clone.
  --wheels DIR          Take what the wheel needs, with the extras cluster and postgresql, from this
                        directory (pip download), so that the host needs no package index.
  --image-root DIR      A directory of photos; may be repeated. For the first installation.
  --listen ADDRESS      Where the server listens: 127.0.0.1 by default, for a proxy on the same
                        host. For the first installation.
  --writable DIR        A directory beside /var/lib/imagedex that the server may write, such as
                        one for indexes; may be repeated.
  --internal NETWORK    Set up the firewall: this network may use the API; may be repeated.
  --cluster NETWORK     Set up the firewall: these machines may use the engine's ports; may be
                        repeated. Either of the two replaces all addresses of before: --cluster
                        alone lets nobody but the host itself use the API.
  --api-port PORT       With these: the ports of the API in the firewall, 443 and 8080 if none is
                        given; may be repeated.
  --ready-seconds N     How long a version may take until it is ready: 180.
  --restore-database    With rollback: also go back to the database as it was before the upgrade.
  --ssh-config FILE     For ssh: ports, keys, jump hosts.

The exit code is 0 when every host is ready, 1 when one failed and is as it was before, 2 for a
wrong command line, and 3 when a host is left with a version that is not ready.
END
}

wrong() {
    printf 'deploy.sh: %s\n' "$1" >&2
    echo "deploy.sh --help tells more." >&2
    exit 2
}

source=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
bundle=$(mktemp -d)
trap 'rm -rf "$bundle"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir "$bundle/options"

command=
wheel=
wheels=
ssh_config=
ready_seconds=180
restore_database=
hosts=

# What goes to the host are files with a value in each line: no shell there reads them.
remember() {
    case $2 in
    '' | *'
'*) wrong "$1: ${2:-an empty value} cannot be used." ;;
    esac
    printf '%s\n' "$2" >>"$bundle/options/${1#--}"
}

while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        usage
        exit 0
        ;;
    --restore-database)
        restore_database=--restore-database
        shift
        continue
        ;;
    --*) [ $# -ge 2 ] || wrong "$1 needs a value, or is not known." ;;
    esac
    case $1 in
    --wheel) wheel=$2 ;;
    --wheels) wheels=$2 ;;
    --ssh-config) ssh_config=$2 ;;
    --ready-seconds)
        case $2 in '' | *[!0-9]*) wrong "$1: $2 is not a number of seconds." ;; esac
        ready_seconds=$2
        ;;
    --image-root | --listen | --writable | --internal | --cluster | --api-port) remember "$1" "$2" ;;
    -*) wrong "There is no option $1." ;;
    *)
        if [ -z "$command" ]; then
            command=$1
        else
            hosts="$hosts $1"
        fi
        shift
        continue
        ;;
    esac
    shift 2
done

case $command in
install | rollback | status) ;;
'') wrong "Say what to do: install, rollback or status." ;;
*) wrong "There is no command $command." ;;
esac
[ -n "$hosts" ] || wrong "Name a host."
[ -z "$restore_database" ] || [ "$command" = rollback ] ||
    wrong "--restore-database goes with rollback."
if [ -e "$bundle/options/api-port" ] && [ ! -e "$bundle/options/internal" ] &&
    [ ! -e "$bundle/options/cluster" ]; then
    wrong "--api-port goes with --internal or --cluster: all addresses are replaced together."
fi

cp -R "$source/deployment" "$source/systemd" "$source/nftables" "$bundle"
rm -rf "$bundle/deployment/__pycache__"
if [ "$command" = install ]; then
    mkdir "$bundle/package"
    if [ -n "$wheel" ]; then
        [ -f "$wheel" ] || wrong "There is no wheel $wheel."
        cp "$wheel" "$bundle/package"
    else
        echo "Building the wheel."
        python=python3
        [ ! -x "$source/../.venv/bin/python" ] || python=$source/../.venv/bin/python
        "$python" -m pip wheel --quiet --no-deps --wheel-dir "$bundle/package" "$source/.."
    fi
    # The exact versions that the tests ran with, and the digests of their files.
    cp "$source/../requirements.lock" "$bundle/package"
    [ -z "$wheels" ] || cp -R "$wheels" "$bundle/wheels"
fi

# shellcheck disable=SC2016 # The host's shell expands it.
on_host='set -eu
bundle=$(mktemp -d)
trap "rm -rf \"\$bundle\"" EXIT
tar xf - -C "$bundle"
sudo=
[ "$(whoami)" = root ] || sudo="sudo -n"
$sudo sh "$bundle/deployment/bootstrap.sh" '

for host in $hosts; do
    echo "$host: $command"
    code=0
    tar cf - -C "$bundle" . | ssh ${ssh_config:+-F "$ssh_config"} -o BatchMode=yes \
        -o StrictHostKeyChecking=yes -o ServerAliveInterval=15 -- "$host" \
        "$on_host $command --ready-seconds $ready_seconds $restore_database" || code=$?
    if [ "$code" -ne 0 ]; then
        printf 'deploy.sh: %s: %s failed (exit code %s).\n' "$host" "$command" "$code" >&2
        [ "$code" -eq 3 ] || code=1
        exit "$code"
    fi
done
