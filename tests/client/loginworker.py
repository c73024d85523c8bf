"""A process that shares one login with others: ``python -m tests.client.loginworker KIND FOLDER SECONDS CAREFUL``.

KIND is ``mount`` (our client) or ``program`` (a stand-in for the `ivcap` program, as its source has it: it knows no
locks, writes over its file, and takes every token for expired 10 s before its time). Ends after SECONDS, or when
standard input does; prints what it has seen as JSON. After that, each further line on standard input asks it for one
more request, which is answered by a line.
"""

from __future__ import annotations

import json
import os
import random
import select
import ssl
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import yaml

from ivcapfs.client import connect
from ivcapfs.config import client_settings
from ivcapfs.errors import IvcapfsError

HTTP = httpx.Client(verify=ssl.create_default_context(), trust_env=False)


class Program:
    """The stand-in. Each call is one run of the program."""

    def __init__(self, file: Path, *, is_careful: bool) -> None:
        self.file = file
        self.is_careful = is_careful

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.file.read_text()) or {"contexts": []}
        return found

    def write(self, config: dict[str, Any]) -> None:
        text = yaml.safe_dump(config, sort_keys=False)
        if self.is_careful:
            new = self.file.with_name("config.new")
            new.touch(0o600)
            new.write_text(text)
            new.replace(self.file)
        else:
            self.file.write_text(text)  # as os.WriteFile

    def token(self) -> str:
        """Run ``ivcap context get access-token --refresh-token``."""
        context = self.context(self.read())
        provider = yaml.safe_load(HTTP.get(context["url"] + "/1/authinfo.yaml").text)["auth"]["providers"]["p0"]
        form = {"grant_type": "refresh_token", "client_id": "cli", "refresh_token": context["refresh-token"]}
        answer = HTTP.post(provider["token-url"], data=form)
        answer.raise_for_status()
        gained = answer.json()
        config = self.read()
        context = self.context(config)
        context["access-token"] = gained["access_token"]
        context["refresh-token"] = gained["refresh_token"]
        expiry = time.time() + gained["expires_in"] - 10
        context["access-token-expiry"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expiry))
        self.write(config)
        return str(gained["access_token"])

    def context(self, config: dict[str, Any]) -> dict[str, Any]:
        return next(context for context in config["contexts"] if context["name"] == "gov")

    def set_active(self) -> None:
        """Run ``ivcap context set``: read, change something else, write."""
        config = self.read()
        if config["contexts"]:
            config["active-context"] = random.choice(["gov", "other"])
            time.sleep(0.002)
            self.write(config)

    def ask(self) -> None:
        url = "http://" + os.environ["DEPLOYMENT"]
        HTTP.get(url + "/1/artifacts", headers={"Authorization": f"Bearer {self.token()}"}).raise_for_status()
        if random.random() < 0.3:
            self.set_active()


def main(kind: str, folder: str, seconds: str, careful: str) -> None:
    """Work, and report."""
    file = Path(folder) / "ivcap-cli" / "config.yaml"
    seen: Counter[str] = Counter()
    if kind == "program":
        ask = Program(file, is_careful=careful == "careful").ask
        pause = 0.25
    else:
        settings = client_settings("gov", environ={"XDG_CONFIG_HOME": folder, "PATH": "/none"})
        connection = connect(settings)
        pause = 0.01

        def ask() -> None:
            connection.api.list_artifacts_page(limit=1)

    def try_it() -> str:
        try:
            ask()
        except (IvcapfsError, httpx.HTTPError, yaml.YAMLError, StopIteration, KeyError) as exc:
            return type(exc).__name__
        return "ok"

    end = time.monotonic() + float(seconds)
    while time.monotonic() < end and not select.select([sys.stdin], [], [], random.uniform(0, 2 * pause))[0]:
        seen[try_it()] += 1
    print(json.dumps(seen), flush=True)
    for _ in sys.stdin:
        print(try_it(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
