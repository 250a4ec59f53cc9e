#!/usr/bin/env bash
# Brings a bare Debian machine to the point where everything here builds and runs: the programs we start
# as servers, and Kafka's jars. Safe to run at any time; with nothing missing it only looks, and says nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# Shows what a command said only if it fails.
quietly() {
    local said
    said=$("$@" 2>&1) && return
    say "this failed: $*" >&2
    echo "$said" >&2
    exit 1
}

have_postgres() {
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || have postgres
}

java_is_recent() {
    local version
    have java || return 1
    # A runtime knows its version from a small file; asking Java itself would take longer than all the rest.
    version=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$(dirname "$(readlink -f "$(command -v java)")")/../release" 2>/dev/null || true)
    [ -n "$version" ] || version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
    [ "${version:-0}" -ge 17 ]
}

missing_packages() {
    have_postgres || echo postgresql
    have redis-server || echo redis-server
    java_is_recent || echo default-jre-headless
    have mvn || echo maven
    have g++ || echo g++
    have make || echo make
    have pkg-config || echo pkg-config
    have curl || echo curl
    have setpriv || echo util-linux
}

# Debian starts a server it has installed, on the port everybody knows. We start our own on our own ports,
# so for as long as apt runs, starting is forbidden and Postgres makes no cluster of its own.
install_packages() {
    local policy=/usr/sbin/policy-rc.d cluster=/etc/postgresql-common/createcluster.d/inkstream.conf
    undo=()
    trap '[ ${#undo[@]} -eq 0 ] || rm -f "${undo[@]}"' EXIT
    if [ ! -e "$policy" ]; then
        undo+=("$policy")
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    if [ ! -e "$cluster" ]; then
        undo+=("$cluster")
        mkdir -p "$(dirname "$cluster")"
        echo 'create_main_cluster = false' >"$cluster"
    fi

    export DEBIAN_FRONTEND=noninteractive
    say "refreshing the list of packages"
    quietly apt-get update -qq
    say "installing $*"
    quietly apt-get install -y -qq --no-install-recommends "$@"

    rm -f "${undo[@]}"
    undo=()
    # Nor shall they start when the machine does.
    local package service
    for package in "$@"; do
        case $package in postgresql | redis-server) service=$package ;; *) continue ;; esac
        if have systemctl; then systemctl disable "$service" >/dev/null 2>&1 || true; fi
    done
}

# Postgres refuses to run as root. Debian's package brings a user for it; other ways to install it may not.
ensure_postgres_user() {
    if [ "$(id -u)" -eq 0 ] && ! id -u postgres >/dev/null 2>&1 && ! id -u inkstream >/dev/null 2>&1; then
        say "adding the user inkstream, which Postgres will run as"
        useradd --system --no-create-home --shell /usr/sbin/nologin inkstream
    fi
}

fetch_kafka() {
    local libs=.data/kafka-libs pom=dev/kafka/pom.xml want
    want=$(cksum <"$pom")
    if [ "$(cat "$libs/fetched" 2>/dev/null || true)" = "$want" ]; then return; fi
    say "fetching Kafka (about 45 MB)"
    rm -rf "$libs"
    mkdir -p "$libs"
    quietly mvn -q -B -f "$pom" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$PWD/$libs"
    # Written last: without it, whatever is there counts as half a download.
    echo "$want" >"$libs/fetched"
}

mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ]; then
        say "these packages are missing, and only root can install them:" >&2
        say "    sudo apt-get update && sudo apt-get install ${missing[*]}" >&2
        exit 1
    elif ! have apt-get; then
        say "these programs are missing, by their names in Debian: ${missing[*]}" >&2
        exit 1
    fi
    install_packages "${missing[@]}"
fi
if ! have cargo; then
    say "Rust is missing; install it with rustup (see the Install page of the Rust project), then open a new shell" >&2
    exit 1
fi
ensure_postgres_user
fetch_kafka
