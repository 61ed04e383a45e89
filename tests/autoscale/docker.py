"""A `docker` for tests: `python docker.py FOLDER WORDS...` does to real processes what Docker does to containers, and refuses
what Docker refuses.

It has the traps of the real one: `up --scale` starts exited containers again, takes away the newest when there are too many,
whatever they do, and without --no-deps starts what a service depends on. FOLDER/log tells what it did.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import yaml

WORKER = Path(__file__).with_name("worker_process.py")
folder = Path(sys.argv[1])
boxes = folder / "containers"


def refuse(text: str, code: int = 1) -> None:
    print(text, file=sys.stderr)
    sys.exit(code)


def log(text: str) -> None:
    with (folder / "log").open("a") as file:
        file.write(f"{text}\n")


def load() -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(boxes.glob("*.json"))]


def status(box: dict[str, object]) -> tuple[str, int]:
    ended = boxes / f"{box['id']}.exit"
    return ("exited", int(ended.read_text())) if ended.exists() else ("running", 0)


def launch(box: dict[str, object], arguments: list[str]) -> None:
    """`restart: on-failure`: a worker that ends badly is started again, one that exits 0 is not."""
    (boxes / f"{box['id']}.exit").unlink(missing_ok=True)
    words = " ".join([sys.executable, "-S", "-E", str(WORKER), str(folder), str(box["service"]), *arguments])
    ended = boxes / f"{box['id']}.exit"
    script = f"until {words}; do sleep 0.1; done; echo 0 > {ended}.draft; mv {ended}.draft {ended}"
    process = subprocess.Popen(
        ["sh", "-c", script], start_new_session=True, env={**os.environ, "CONTAINER": str(box["id"])[:12]},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    (boxes / f"{box['id']}.json").write_text(json.dumps({**box, "pid": process.pid}))


def create(service: str, arguments: list[str]) -> None:
    box = {"id": secrets.token_hex(32), "service": service, "created": time.time()}
    log(f"created {service}")
    launch(box, arguments)


def remove(box: dict[str, object]) -> None:
    if status(box)[0] == "running":
        os.killpg(int(str(box["pid"])), signal.SIGKILL)
    for path in boxes.glob(f"{box['id']}*"):
        path.unlink()


def up(words: list[str]) -> None:
    (file,) = (words[i + 1] for i, word in enumerate(words) if word == "--file")
    services = yaml.safe_load(Path(file).read_text())["services"]
    service, (scaled, _, number) = words[-1], words[words.index("--scale") + 1].partition("=")
    for name in (service, scaled):
        if name not in services:
            refuse(f"no such service: {name}")
    if "--no-deps" not in words:
        for sibling in services[service].get("depends_on", ()):
            log(f"started sibling {sibling}")
    arguments = list(services[service].get("command", ()))
    own = sorted((box for box in load() if box["service"] == service), key=lambda box: float(str(box["created"])))
    while len(own) > int(number):
        victim = own.pop()
        log(f"took away {'a busy one' if busy(victim) else 'one'}")
        remove(victim)
    for box in own:
        if status(box)[0] == "exited":
            log("started an exited one")
            launch(box, arguments)
    for _ in range(int(number) - len(own)):
        create(service, arguments)


def busy(box: dict[str, object]) -> bool:
    told = folder / "crew" / str(box["id"])[:12]
    return told.exists() and json.loads(told.read_text())["state"] == "busy"


def inspect(ids: list[str]) -> None:
    found = {str(box["id"]): box for box in load()}
    for one in ids:
        if one not in found:
            refuse(f"Error: No such container: {one}")
    told = []
    for one in ids:
        how, code = status(found[one])
        created = (
            datetime.fromtimestamp(float(str(found[one]["created"])), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"
        )
        told.append(
            {
                "Id": one,
                "Created": created,
                "State": {"Status": how, "ExitCode": code},
                "Config": {"Hostname": one[:12]},
            }
        )
    print(json.dumps(told))


def main(words: list[str]) -> None:
    if (folder / "no-engine").exists():
        refuse("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
    match words:
        case ["ps", "--all", "--quiet", "--no-trunc", "--filter", project, "--filter", service]:
            assert project == "label=com.docker.compose.project=shop"
            print(
                "\n".join(str(b["id"]) for b in load() if service == f"label=com.docker.compose.service={b['service']}")
            )
        case ["inspect", "--type", "container", *ids]:
            inspect(ids)
        case ["rm", *flags, one]:
            (box,) = [box for box in load() if box["id"] == one] or [None]
            if box is None:
                refuse(f"Error response from daemon: No such container: {one}")
            elif status(box)[0] == "running" and "--force" not in flags:
                refuse(
                    f"Error response from daemon: cannot remove container {one}: container is running: stop it first"
                )
            else:
                log(f"removed {'by force' if flags else 'an exited one'}")
                remove(box)
        case ["compose", "--project-name", "shop", "--file", _, "up", *_]:
            up(words)
        case _:
            refuse(f"unknown command: docker {' '.join(words)}", 125)


main(sys.argv[2:])
