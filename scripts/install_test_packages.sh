#!/bin/sh
# Get the Debian packages that some tests need, when that is possible without asking anybody:
# as root, with apt-get. Elsewhere those tests are skipped and say so.
set -eu

# Servers and tools of the system are not on everybody's path.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH

missing=
need() {
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need chromium chromium
# Debian keeps the server's programs out of the way, one directory for each version.
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || need initdb postgresql
# The tests of hosts and of deployments.
need sshd openssh-server
need ip iproute2
need nft nftables
need nginx nginx-light
need caddy caddy
need systemd-analyze systemd
/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Not installed:$missing. The tests that need them are skipped; to run those:"
    echo "    sudo apt-get install$missing"
    exit 0
fi

echo "Installing for the tests:$missing"
export DEBIAN_FRONTEND=noninteractive
# They are for the tests alone: no service of theirs is to be started on this machine, now or when
# it starts again. Those that are there already stay as they are.
new_services=
for service in caddy caddy-api nftables nginx postgresql ssh; do
    [ -e "/usr/lib/systemd/system/$service.service" ] ||
        [ -e "/lib/systemd/system/$service.service" ] || new_services="$new_services $service"
done
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    # The shell may skip EXIT when a signal ends it.
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
fi
install() {
    # shellcheck disable=SC2086 # Each word is a package.
    apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --yes \
        --no-install-recommends $missing </dev/null >/dev/null
}
# The package lists of a fresh machine are empty or old; then the first try fails.
install 2>/dev/null ||
    { apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null && install; } ||
    echo "apt-get could not install$missing; the tests that need them are skipped." >&2

# policy-rc.d keeps services from being started, not from being enabled.
if command -v systemctl >/dev/null 2>&1; then
    for service in $new_services; do
        # It fails for a service that has not come, which is none that could be started.
        systemctl --quiet disable "$service" >/dev/null 2>&1 || true
    done
fi
