"""The two servers that are compared: started on loopback addresses of their own, asked, cleaned up."""
import concurrent.futures
import contextlib
import gzip
import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.parse

import normalise
import sequences

WAIT_SECONDS = 30
DNS_PORT = 8600
ANSWER_SECONDS = 10
JOIN_SECONDS = 0.3  # within which a query that was woken has answered
WAITING_MAX = 64


def free_address():
    for _ in range(100):
        address = "127.%d.%d.1" % (random.randint(100, 250), random.randint(1, 250))
        try:
            for port in (8500, 8300):
                with socket.socket() as probe:
                    probe.bind((address, port))
            return address
        except OSError:
            continue
    raise RuntimeError("no free loopback address")


def is_consul(path):
    """Whether that is a real one: Proconsul goes by the same name."""
    try:
        said = subprocess.run([path, "version"], stdout=subprocess.PIPE, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return said.startswith(b"Consul v") and b"Proconsul" not in said


def quoted(text):
    return urllib.parse.quote(text, safe="")


class Ended(Exception):
    """A server ended by itself."""


class Server:
    def __init__(self, binary, folder, settings=None, dns=False):
        self.binary = binary
        self.folder = folder
        self.address = free_address()
        self.config = os.path.join(folder, "config.json")
        self.dns = dns
        self.configure(settings or {})
        self.start()

    def start(self):
        with open(os.path.join(self.folder, "log"), "wb") as log:
            self.process = subprocess.Popen([self.binary, "agent", "-config-file", self.config],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def anew(self):
        """Without whatever it had stored."""
        shutil.rmtree(os.path.join(self.folder, "data"), ignore_errors=True)
        self.start()
        self.wait()

    def last_words(self):
        with open(os.path.join(self.folder, "log"), errors="replace") as log:
            lines = log.read().splitlines()
        return next((line for line in lines if line.startswith("panic:")), (lines or [""])[-1])

    def configure(self, settings):
        """Writes its configuration; a running one reads it again when it is told to."""
        with open(self.config, "w", encoding="utf-8") as file:
            json.dump({"server": True, "bootstrap": True, "node_name": "node1",
                       "bind_addr": self.address, "client_addr": self.address,
                       "data_dir": os.path.join(self.folder, "data"), "disable_update_check": True,
                       "performance": {"raft_multiplier": 1},
                       "ports": {"http": 8500, "dns": DNS_PORT if self.dns else -1, "server": 8300,
                                 "serf_lan": 8301, "serf_wan": -1}, **settings}, file)

    def wait(self):
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                status, _, raw = self.ask("GET", "/v1/health/node/node1", None)
                if status == 200 and b"passing" in raw:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError("the server did not start, see %s/log" % self.folder)

    def stop(self):
        self.process.kill()
        self.process.wait(10)

    def ask(self, method, target, data, headers=()):
        connection = http.client.HTTPConnection(self.address, 8500, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, target, body=data,
                               headers={name: value.encode() for name, value in headers})
            answer = connection.getresponse()
            raw = answer.read()
            if raw and answer.headers["Content-Encoding"] == "gzip":
                raw = gzip.decompress(raw)
            return answer.status, answer.headers, raw
        except TimeoutError:
            return -1, {}, b"no answer in time"
        except (http.client.HTTPException, ConnectionError) as error:
            if self.process.poll() is not None:
                raise Ended(self.last_words()) from error
            return 0, {}, b"connection closed"
        finally:
            connection.close()

    def run(self, steps, prefix):
        """What it answers to the steps; leaves nothing behind."""
        names = normalise.Names([(prefix, "P"), (self.address, "ADDR")])
        captured = {}
        waiting = {}
        written = 0
        before = {}
        pool = concurrent.futures.ThreadPoolExecutor(WAITING_MAX)

        def filled(text):
            text = text.replace("${p}", prefix)
            return re.sub(r"\{([si]\d+)\}", lambda found: captured.get(found.group(1), "0"), text)

        def asked(step):
            query = "&".join(name if value is None else "%s=%s" % (name, quoted(filled(value)))
                             for name, value in step.get("params", []))
            path = filled(step["path"]).replace(" ", "%20")
            target = path + (("&" if "?" in path else "?") + query if query else "")
            data = sequences.dumps(step)
            data = filled(data).encode() if data is not None else None
            return step["method"], target, data, step.get("headers", ())

        def answered(step, status, headers, raw):
            return normalise.answer(status, headers, raw, names, step["path"].startswith("/v1/kv") or
                                    step.get("indexes", False))

        def remember(name, where, value):
            captured[name] = value
            if len(value) > 1 and not where.startswith("header:"):  # It comes back in texts.
                names.replaced.append((value, "CAPTURED"))

        answers = []
        for step in steps:
            if "sleep" in step:
                time.sleep(step["sleep"])
                answers.append(normalise.answer(200, {}, b"", names))
            elif "start" in step:
                waiting[step["start"]] = (before.get(step["path"]), pool.submit(self.ask, *asked(step)))
                answers.append(normalise.answer(200, {}, b"", names))
            elif "join" in step:
                found = woken(*waiting.pop(step["join"], (None, None)), written + JOIN_SECONDS)
                answers.append(answered(step, *found) if found else
                               normalise.answer(200, {}, b"nothing new", names))
            else:
                status, headers, raw = self.ask(*asked(step))
                for name, where in step.get("capture", {}).items():
                    remember(name, where, capture(raw, headers, where))
                written = time.monotonic()
                before[step["path"]] = raw
                answers.append(answered(step, status, headers, raw))
        self.clean(prefix)
        pool.shutdown(wait=False)
        return answers

    def clean(self, prefix):
        """Removes what the steps made."""
        self.ask("DELETE", "/v1/kv/%s?recurse" % prefix, None)
        self.ask("DELETE", "/v1/kv/?recurse", None)
        self.ask("PUT", "/v1/operator/autopilot/configuration", b"{}")
        for session in self.listed("/v1/session/list"):
            self.ask("PUT", "/v1/session/destroy/" + session["ID"], None)
        for one in self.listed("/v1/agent/services"):
            self.ask("PUT", "/v1/agent/service/deregister/" + quoted(one), None)
        for one in self.listed("/v1/agent/checks"):
            self.ask("PUT", "/v1/agent/check/deregister/" + quoted(one), None)
        for node in self.listed("/v1/catalog/nodes"):
            if node["Node"] != "node1":
                self.ask("PUT", "/v1/catalog/deregister", json.dumps({"Node": node["Node"]}))
        for query in self.listed("/v1/query"):
            self.ask("DELETE", "/v1/query/" + query["ID"], None)

    def listed(self, target):
        status, _, raw = self.ask("GET", target, None)
        return json.loads(raw) or [] if status == 200 else []


def woken(before, future, deadline):
    """What a waiting query answered, if that is another body than before; None: nothing new."""
    try:
        found = future.result(max(0.01, deadline - time.monotonic())) if future else None
        return found if found and found[2] != before else None
    except concurrent.futures.TimeoutError:
        return None


def capture(raw, headers, where):
    """`json:0.ModifyIndex` or `header:X-Consul-Index` of an answer, "0" where there is none."""
    if where.startswith("header:"):
        return headers.get(where.partition(":")[2]) or "0"
    try:
        value = json.loads(raw)
        for part in where.partition(":")[2].split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        return str(value)
    except (ValueError, KeyError, IndexError, TypeError):
        return "0"


@contextlib.contextmanager
def pair(ours, theirs, settings=None, dns=False):
    """Proconsul and Consul, started with these settings; stopped and removed at the end."""
    folder = tempfile.mkdtemp(prefix="differ-")
    started = []
    try:
        for name, binary in (("ours", ours), ("theirs", theirs)):
            os.mkdir(os.path.join(folder, name))
            started.append(Server(binary, os.path.join(folder, name), settings, dns))
        for server in started:
            server.wait()
        yield started
    finally:
        for server in started:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
