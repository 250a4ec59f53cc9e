#!/usr/bin/env bash
# Asks both HTTP services all that their OpenAPI documents allow, and much that they do not, and fails on any
# answer that is a 5xx or not in the documents. `make fuzz` runs it beside throw-away servers.
set -euo pipefail
cd "$(dirname "$0")/.."

# The version is part of what is tested: another one asks otherwise.
readonly SCHEMATHESIS=4.32.5
readonly EXAMPLES=${FUZZ_EXAMPLES:-100} SECONDS_EACH=${FUZZ_SECONDS:-60}
readonly TOOL=$PWD/.data/fuzz BUILT=${CARGO_TARGET_DIR:-target}/debug
# A request may fit the document and be refused all the same: for its version, its key, its cursor.
readonly NOT_CHECKED=positive_data_acceptance

say() { echo "fuzz: $*"; }

ensure_tool() {
    if [ "$(cat "$TOOL/installed" 2>/dev/null || true)" = "$SCHEMATHESIS" ]; then return; fi
    if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
        if [ "$(id -u)" -ne 0 ]; then
            say "Python is missing, or its venv; only root can install it: apt-get install python3-venv" >&2
            exit 1
        fi
        say "installing python3-venv"
        apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv
    fi
    say "installing schemathesis $SCHEMATHESIS"
    rm -rf "$TOOL"
    python3 -m venv "$TOOL"
    "$TOOL/bin/pip" install -q --disable-pip-version-check "schemathesis==$SCHEMATHESIS"
    # Written last: without it, whatever is there counts as half an installation.
    echo "$SCHEMATHESIS" >"$TOOL/installed"
}

# As many ports as asked for, all different, that nobody listens on.
free_ports() {
    python3 - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(one.getsockname()[1] for one in sockets))
PYTHON
}

# A service with its ops port, which it is waited for at.
start() {
    local name=$1 http=$2 ops=$3
    INKSTREAM_HTTP_ADDRESS=127.0.0.1:$http INKSTREAM_OPS_ADDRESS=127.0.0.1:$ops \
        "$BUILT/$name" >"$logs/$name.log" 2>&1 &
    started+=($!)
    for _ in $(seq 300); do
        if curl -fs -o /dev/null "http://127.0.0.1:$ops/health/ready"; then return; fi
        sleep 0.1
    done
    say "$name was not ready in time:" >&2
    tail "$logs/$name.log" >&2
    exit 1
}

stop() {
    [ ${#started[@]} -eq 0 ] || kill "${started[@]}" 2>/dev/null || true
    wait
}

# The configuration holds the token, which a list of processes would show.
fuzz() {
    local name=$1 port=$2 status=0
    say "asking the $name for about $SECONDS_EACH seconds"
    # It keeps notes in the folder it runs in, and reads its configuration there.
    (cd "$logs" && "$TOOL/bin/schemathesis" run "http://127.0.0.1:$port/openapi.json" \
        --exclude-checks "$NOT_CHECKED" --max-examples "$EXAMPLES" --max-time "$SECONDS_EACH" \
        --workers 2 --continue-on-failure --warnings off --no-color) >"$logs/$name.fuzz" 2>&1 || status=$?
    if [ $status -ne 0 ]; then
        cut -c -400 "$logs/$name.fuzz"
        failed=1
    fi
    sed -n 's/^ *\([0-9]* generated.*\)/fuzz: test cases: \1/p' "$logs/$name.fuzz"
}

: "${INKSTREAM_TEST_POSTGRES_URL:?run this by \`make fuzz\`}"
ensure_tool
logs=$(mktemp -d "${TMPDIR:-/tmp}/inkstream-fuzz.XXXXXX")
started=()
failed=0
trap stop EXIT

read -r command_port command_ops projector_ops query_port query_ops < <(free_ports 5)
INKSTREAM_JWT_SECRET=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
export INKSTREAM_JWT_SECRET
export INKSTREAM_DATABASE_URL=$INKSTREAM_TEST_POSTGRES_URL
export INKSTREAM_REDIS_URL=$INKSTREAM_TEST_REDIS_URL
export INKSTREAM_KAFKA_BROKERS=$INKSTREAM_TEST_KAFKA
export INKSTREAM_PUBLIC_URL=http://127.0.0.1:$query_port
if ! "$BUILT/command-service" migrate >"$logs/migrate.log" 2>&1; then
    say "the database could not be prepared; what it said is in $logs/migrate.log" >&2
    exit 1
fi
start command-service "$command_port" "$command_ops"
start projector 0 "$projector_ops"
start query-service "$query_port" "$query_ops"

token=$("$BUILT/command-service" token --author anne --name Anne)
(
    umask 077
    cat >"$logs/schemathesis.toml" <<TOML
[auth.openapi.bearer]
bearer = "$token"

[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "409", "413", "415", "422"]
TOML
)
# In this order, so that there is something to read.
fuzz command-service "$command_port"
fuzz query-service "$query_port"
if [ "$failed" -ne 0 ]; then
    say "some answers are not in the documents; logs are in $logs" >&2
    exit 1
fi
rm -rf "$logs"
say "every answer is in the documents"
