"""Publishes some posts and looks at them with Chromium, which it steers by WebDriver. Run by browser.sh."""

import base64
import http.server
import json
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

TARGET = pathlib.Path(sys.argv[1])
PICTURES = TARGET / "browser"
WINDOWS = [(390, 844), (1280, 900)]
SCHEMES = ["light", "dark"]

PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1200 700" width="1200" height="700">
<rect width="1200" height="700" fill="#cfd8dc"/><circle cx="880" cy="210" r="90" fill="#f6e3b4"/>
<path d="M0 520 300 300 520 470 760 250 1200 560V700H0z" fill="#54707d"/></svg>"""

LONG_TEXT = """A page is written once and read a thousand times. So it is made ready *before* anybody asks, kept in
memory, and sent as it is. What follows is a **sample of everything** that a text may hold, with
[a link](https://example.org/), some `code`, and a claim.[^1]

## How an event travels

An author publishes. The command becomes an event, the event gets a position, and the position is what all
else is compared with. Nothing waits for anything that it does not need.

> The purpose of writing is to inflate weak ideas, obscure pure reasoning, and inhibit clarity. *Resist.*

1. The log is asked once.
2. The views are made ready:
   - the page,
   - the lists it is in,
   - its text as HTML.
3. The reader is answered.

### What it looks like in code

```rust
/// Folds one event into a row. One at or below its position is in it already.
pub fn fold(row: Option<Self>, event: &Recorded<PostEvent>, id: PostId) -> Self {
    match row { Some(row) if row.position >= event.position => row, before => Self { position: event.position, page: fold(before) } }
}
```

![Hills under a pale sun](%s)

| Store    | Is                     | May lose                                             | Reads a second |
|:---------|:-----------------------|:-----------------------------------------------------|---------------:|
| Postgres | the log of events      | nothing; a backup brings back an earlier state       |          9,400 |
| Kafka    | the way events travel  | everything: what it does not bring is read elsewhere |        100,000 |
| Redis    | the views              | everything, and is filled again                      |        160,000 |

- [x] Write every day
- [ ] ~~Wait for the muse~~

---

A word without end: %s. And <b>tags</b> are shown as they were written.

[^1]: Footnotes lead there and back.
"""


def say(text):
    print(f"browser: {text}", flush=True)


def call(method, url, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    return [one.getsockname()[1] for one in sockets]


def wait_for(url):
    for _ in range(300):
        try:
            return call("GET", url)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    sys.exit(f"browser: {url} did not answer in time")


class Pictures(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "image/svg+xml")
        self.end_headers()
        self.wfile.write(PICTURE.encode())

    def log_message(self, *_):
        pass


class Browser:
    """A session of WebDriver."""

    def __init__(self, port, profile):
        self.base = f"http://127.0.0.1:{port}"
        wait_for(f"{self.base}/status")
        arguments = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", f"--user-data-dir={profile}",
        ]
        wanted = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self.ask("session", {"capabilities": {"alwaysMatch": wanted}})
        self.base += f"/session/{session['sessionId']}"

    def ask(self, path, body):
        return json.loads(call("POST", f"{self.base}/{path}", body))["value"]

    def devtools(self, command, **parameters):
        return self.ask("goog/cdp/execute", {"cmd": command, "params": parameters})

    def run(self, script):
        return self.ask("execute/sync", {"script": script, "args": []})

    def quit(self):
        call("DELETE", self.base)


# The contrast of each text with what is behind it (WCAG 2.2, 1.4.3), where it is too low.
CONTRAST = """
const channels = color => color.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const behind = element => {
    for (; element; element = element.parentElement) {
        const color = channels(getComputedStyle(element).backgroundColor);
        if (color[3] !== 0) return color;
    }
    return [255, 255, 255];
};
return [...document.querySelectorAll('body *')]
    .filter(element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
    .map(element => {
        const [a, b] = [light(channels(getComputedStyle(element).color)), light(behind(element))];
        return [element.outerHTML.slice(0, 80), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    })
    .filter(([, contrast]) => contrast < 4.5);
"""


def faults(browser, width):
    found = []
    wide = browser.run("return document.documentElement.scrollWidth")
    if wide > width:
        found.append(f"is {wide} pixels wide in a window of {width}")
    found += [f"is hard to read ({contrast:.1f}): {html}" for html, contrast in browser.run(CONTRAST)]
    if browser.run("return [...document.images].some(image => !image.complete || !image.naturalWidth)"):
        found.append("lacks a picture")
    if browser.run("return document.querySelectorAll('h1').length") != 1:
        found.append("has not just one h1")
    return found


def look(browser, name, url, is_refusal):
    bad = []
    for width, height in WINDOWS:
        for scheme in SCHEMES:
            browser.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
            browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            browser.ask("url", {"url": url})
            # Pictures are loaded when they come near.
            browser.run("document.images.length && document.images[0].scrollIntoView()")
            for _ in range(50):
                if browser.run("return [...document.images].every(image => image.complete && image.naturalWidth)"):
                    break
                time.sleep(0.1)
            bad += [f"{name} ({width} {scheme}) {fault}" for fault in faults(browser, width)]
            for line in browser.ask("se/log", {"type": "browser"}):
                if not (is_refusal and "Failed to load resource" in line["message"]):
                    bad.append(f"{name} ({width} {scheme}) says: {line['message']}")
            browser.run("window.scrollTo(0, 0)")
            picture = browser.devtools("Page.captureScreenshot", captureBeyondViewport=True)
            (PICTURES / f"{name}-{width}-{scheme}.png").write_bytes(base64.b64decode(picture["data"]))
    return bad


def publish(commands, token, **post):
    headers = {"Authorization": f"Bearer {token}", "Prefer": "wait=10"}
    return json.loads(call("POST", f"{commands}/posts", post, headers))


def samples(commands, token, picture):
    for number in range(1, 23):
        publish(commands, token, title=f"Notes of day {number}", content="Little happened.")
    deleted = publish(commands, token, title="Regretted", content="Never mind.")
    call("DELETE", f"{commands}/posts/{deleted['id']}", headers={"Authorization": f"Bearer {token}"})
    short = "What a reader may rely on while half of the servers behind a page are being restarted."
    publish(commands, token, title="Short promises", content=short, summary=short, tags=["operations"])
    long = LONG_TEXT % (picture, "Donaudampfschifffahrts" * 6)
    summary = "What happens between the moment a post is published and the moment somebody reads it, and why."
    publish(commands, token, title="On keeping pages ready before anybody asks for them", content=long, summary=summary,
            tags=["event-sourcing", "redis", "writing"])


def main():
    PICTURES.mkdir(parents=True, exist_ok=True)
    command, command_ops, projector_ops, query, query_ops, driver = free_ports(6)
    commands, reads = f"http://127.0.0.1:{command}", f"http://127.0.0.1:{query}"
    pictures = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=pictures.serve_forever, daemon=True).start()

    settings = {
        **os.environ,
        "INKSTREAM_JWT_SECRET": secrets.token_hex(32),
        "INKSTREAM_DATABASE_URL": os.environ["INKSTREAM_TEST_POSTGRES_URL"],
        "INKSTREAM_REDIS_URL": os.environ["INKSTREAM_TEST_REDIS_URL"],
        "INKSTREAM_KAFKA_BROKERS": os.environ["INKSTREAM_TEST_KAFKA"],
        "INKSTREAM_PUBLIC_URL": reads,
    }
    service = lambda name: str(TARGET / "debug" / name)
    subprocess.run([service("command-service"), "migrate"], env=settings, check=True, stdout=subprocess.DEVNULL)
    started = []
    with tempfile.TemporaryDirectory(prefix="inkstream-browser.", ignore_cleanup_errors=True) as notes:
        try:
            for name, http_port, ops in [("command-service", command, command_ops), ("projector", 0, projector_ops),
                                         ("query-service", query, query_ops)]:
                addresses = {"INKSTREAM_HTTP_ADDRESS": f"127.0.0.1:{http_port}", "INKSTREAM_OPS_ADDRESS": f"127.0.0.1:{ops}"}
                log = open(f"{notes}/{name}.log", "w")
                started.append(subprocess.Popen([service(name)], env={**settings, **addresses}, stdout=log, stderr=log))
                wait_for(f"http://127.0.0.1:{ops}/health/ready")
            token = subprocess.run([service("command-service"), "token", "--author", "anne", "--name", "Anne Lister"],
                                   env=settings, check=True, capture_output=True, text=True).stdout.strip()
            say("publishing samples")
            samples(commands, token, f"http://127.0.0.1:{pictures.server_port}/hills.svg")
            started.append(subprocess.Popen(["chromedriver", f"--port={driver}"], stdout=subprocess.DEVNULL))
            browser = Browser(driver, f"{notes}/profile")
            bad = []
            for name, path, is_refusal in [
                ("post", "/posts/on-keeping-pages-ready-before-anybody-asks-for-them", False),
                ("posts", "/posts", False),
                ("tag", "/posts?tag=operations", False),
                ("gone", "/posts/regretted", True),
                ("missing", "/posts/nothing", True),
            ]:
                say(f"looking at {path}")
                bad += look(browser, name, reads + path, is_refusal)
            browser.quit()
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                process.wait()
    for fault in bad:
        say(fault)
    say(f"pictures are in {PICTURES}")
    sys.exit(1 if bad else 0)


main()
