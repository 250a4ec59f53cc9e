#!/usr/bin/env bash
# Looks at the pages for people with a real browser: narrow and wide, light and dark. Fails if one is wider than its
# window, is hard to read, or has anything to say on the console. `make browser` runs it beside throw-away servers;
# the pictures are in browser/ of the target directory.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "browser: $*"; }

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v chromedriver >/dev/null || missing+=(chromium-driver)
command -v python3 >/dev/null || missing+=(python3)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ]; then
        say "only root can install what is missing: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" fonts-liberation >/dev/null
fi
: "${INKSTREAM_TEST_POSTGRES_URL:?run this by \`make browser\`}"
exec python3 dev/browser.py "${CARGO_TARGET_DIR:-target}"
