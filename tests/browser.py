"""A browser for the tests: headless Chromium, driven over the Chrome DevTools Protocol. Standard library only.

    with Browser() as browser:
        page = browser.open("run.html", width=390, dark=True)
        page.click("#think"), page.wait("document.title == 'done'"), page.screenshot("page.png")
        assert not page.errors

The protocol is JSON, each message with a zero byte behind it: Chromium reads from file descriptor 3 and writes to 4
(--remote-debugging-pipe). https://chromedevtools.github.io/devtools-protocol

    python tests/browser.py run.html FOLDER       screenshots of every view, light, dark and as on a phone
"""
import argparse
import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import tempfile
import time

# The shell is Chromium without what only a person needs: a page opens in a sixth of the time.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"]
TIMEOUT = 20  # seconds to wait for anything


class Browser:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="browser-")
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for pipe in (os.pipe(), os.pipe()) for end in pipe if not os.set_inheritable(end, False)]
        theirs_in, self.out, self.into, theirs_out = ends
        self.process = subprocess.Popen([CHROMIUM, *FLAGS, f"--user-data-dir={self.folder}", "about:blank"], close_fds=False, start_new_session=True,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        preexec_fn=lambda: (os.dup2(theirs_in, 3), os.dup2(theirs_out, 4)))
        os.close(theirs_in), os.close(theirs_out)
        self.number, self.buffer, self.pages = 0, b"", {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGKILL), self.process.wait()
        os.close(self.out), os.close(self.into)
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method, session=None, **params):
        """Send a command -> its result, a dict. RuntimeError if Chromium refuses it; events on the way go to their page."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            if answer.get("sessionId") in self.pages:
                self.pages[answer["sessionId"]].event(answer["method"], answer["params"])

    def read(self):
        """-> the next message, a dict. RuntimeError if none comes."""
        while b"\0" not in self.buffer:
            if not select.select([self.into], [], [], TIMEOUT)[0]:
                raise RuntimeError(f"Chromium has said nothing for {TIMEOUT} s")
            more = os.read(self.into, 1 << 16)
            if not more:
                raise RuntimeError("Chromium has ended")
            self.buffer += more
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path, width=1200, height=900, dark=False):
        """A file -> Page, loaded. width, height: CSS pixels."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        page.call("Page.navigate", url=pathlib.Path(path).resolve().as_uri())
        page.wait("location.href != 'about:blank' && document.readyState == 'complete'")
        return page


class Page:
    """errors: what the console said in red, and exceptions; requests: the addresses that the page asked for."""

    def __init__(self, browser, session):
        self.browser, self.session, self.errors, self.requests = browser, session, [], []

    def event(self, name, params):
        if name == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif name == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"]))
        elif name == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif name == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def close(self):
        self.call("Page.close")
        del self.browser.pages[self.session]

    def reload(self):
        """Begin anew; what has been noted is forgotten."""
        self.js("history.replaceState(null, '', location.pathname); window.before = true")
        self.errors.clear(), self.requests.clear()
        self.call("Page.reload")
        self.wait("!window.before && document.readyState == 'complete'")

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def js(self, expression):
        """The value of a JavaScript expression; promises are awaited. RuntimeError if it throws."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails'].get('exception', {}).get('description')}")
        return found["result"].get("value")

    def wait(self, condition):
        """Until a JavaScript expression is true. RuntimeError if it does not become so."""
        end = time.monotonic() + TIMEOUT
        while not self.js(condition):
            if time.monotonic() > end:
                raise RuntimeError(f"never true: {condition}")
            time.sleep(0.02)

    def click(self, selector):
        """A click of the mouse in the middle of the first element that matches, scrolled to; what lies above it gets it instead."""
        x, y = self.js(f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
                       f"return [r.x + r.width / 2, r.y + r.height / 2] }})(document.querySelector({json.dumps(selector)}))")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key):
        """A key by its name: Enter, Tab, ArrowLeft."""
        code = {"Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35, " ": 32}.get(key, 0)
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **({"text": text} if kind == "keyDown" else {}))

    def type(self, text):
        """Into what has the focus, in place of what it holds."""
        self.js("document.activeElement.select?.()")
        self.call("Input.insertText", text=text)

    def screenshot(self, path, whole=True):
        """A PNG of the window, or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))


LOOKS = {"light": {}, "dark": {"dark": True}, "phone": {"width": 390, "height": 844}}


def screenshots(page, folder):
    """PNGs of every view of a page of view.py, light, dark and as on a phone: to be looked at."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with Browser() as browser:
        for look, given in LOOKS.items():
            opened = browser.open(page, **given)
            for view in opened.js("[...document.querySelectorAll('nav button')].map(b => b.getAttribute('aria-controls'))"):
                opened.click(f"#tab-{view}")
                if view == "live":
                    opened.js("(() => { const pace = document.getElementById('live-pace'); pace.value = 0; pace.dispatchEvent(new Event('change')) })()")
                    opened.click(".live-main")
                    opened.wait("[...document.querySelectorAll('.live-end')].every(e => e.textContent)")
                opened.screenshot(folder / f"{view}-{look}.png")
            print(look, *opened.errors, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Screenshots of every view of a page of view.py, light, dark and as on a phone.")
    parser.add_argument("page"), parser.add_argument("folder")
    screenshots(**vars(parser.parse_args()))
