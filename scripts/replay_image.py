"""Replays the Dockerfile without a Docker engine: each stage in a folder of its own, entered with chroot.

    sudo python scripts/replay_image.py /tmp/image -- python -m pipeline.kubeflow.entrypoint --help

Reads the instructions from the Dockerfile itself, so that the two cannot drift apart, then runs the health check, the
default command and the given one as the image's user. What differs from a real build: the base is made by debootstrap
from Debian's packages, with Debian's Python 3.11, and a COPY from an image of a container registry is left out and
said so. Needs root, debootstrap and about 8 GB in the folder, which must be new.
"""

# ruff: noqa: T201 (a command line tool prints)

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
BASE_PACKAGES = "ca-certificates,python3,python3-distutils,python3-lib2to3,python3.11,python3.11-venv"
#: Settings with which pip and uv reach their index; the rest of this machine's environment stays outside.
PASSED_ON = ("PIP_INDEX_URL", "UV_INDEX_URL", "PIP_CERT", "SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass
class Stage:
    """A stage's file system and what its instructions have set."""

    root: Path
    env: dict[str, str] = field(
        default_factory=lambda: {"HOME": "/root", "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    )
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    exec_forms: dict[str, list[str]] = field(default_factory=dict)
    """ENTRYPOINT, CMD and HEALTHCHECK."""

    def path(self, inside: str) -> Path:
        """Where a path inside the stage, absolute or relative to its working directory, lies on this machine."""
        return self.root / Path("/", self.workdir, inside).relative_to("/")

    def run(self, command: list[str], more_env: dict[str, str]) -> int:
        """Runs a command inside, with mounts that end with it; gives its exit status."""
        env = [f"{name}={value}" for name, value in (self.env | more_env).items()]
        inside = ["chroot", f"--userspec={self.user}", self.root, "env", "-i", f"--chdir={self.workdir}", *env]
        mount = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec "$@"'
        return subprocess.call(["unshare", "--mount", "sh", "-c", mount, self.root, *inside, *command])


class Replay:
    """Carries out a Dockerfile's instructions in order."""

    def __init__(self, folder: Path, build_args: dict[str, str]) -> None:
        self.folder = folder
        self.build_args = build_args
        self.defaults: dict[str, str] = {}
        self.stages: dict[str, Stage | None] = {}
        self.stage: Stage | None = None

    def carry_out(self, name: str, argument: str) -> None:
        if name == "ARG":
            key, _, default = argument.partition("=")
            values = self.defaults if self.stage is None else self.stage.args
            values[key] = self.build_args.get(key, default)
        elif name == "FROM":
            image, _, alias = expand(argument, self.defaults).partition(" AS ")
            self.stage = self.stages[alias] = self.start_stage(image, alias or "final")
        elif self.stage:
            getattr(self, name.lower())(self.stage, argument)

    def start_stage(self, image: str, name: str) -> Stage | None:
        """A fresh copy of the base, or None for an image that is not at hand."""
        if not image.startswith("python:3.11-"):
            return None
        base, root = self.folder / "base", self.folder / name
        if not base.exists():
            make_base(base)
        subprocess.run(["cp", "-a", base, root], check=True)
        return Stage(root)

    def run(self, stage: Stage, argument: str) -> None:
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        if status := stage.run([*stage.shell, argument], stage.args | passed_on):
            sys.exit(f"exit status {status} of RUN {argument}")

    def copy(self, stage: Stage, argument: str) -> None:
        words = argument.split()
        origin: Stage | None = Stage(self.folder / "context")
        if words[0].startswith("--from="):
            origin = self.stages[words.pop(0).removeprefix("--from=")]
        if origin is None:
            print("    left out: the image of that stage is not at hand")
            return
        *sources, target = words
        for source in sources:
            found, place = origin.root / source.lstrip("/"), stage.path(target)
            if target.endswith("/"):
                place /= found.name
            place.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", "--no-preserve=ownership", "-T", found, place], check=True)

    def env(self, stage: Stage, argument: str) -> None:
        for setting in argument.split():
            name, _, value = setting.partition("=")
            stage.env[name] = expand(value, stage.env)

    def workdir(self, stage: Stage, argument: str) -> None:
        stage.workdir = str(Path("/", stage.workdir, argument))
        stage.path(".").mkdir(parents=True, exist_ok=True)

    def user(self, stage: Stage, argument: str) -> None:
        stage.user = argument

    def shell(self, stage: Stage, argument: str) -> None:
        stage.shell = json.loads(argument)

    def entrypoint(self, stage: Stage, argument: str) -> None:
        stage.exec_forms["ENTRYPOINT"] = json.loads(argument)

    def cmd(self, stage: Stage, argument: str) -> None:
        stage.exec_forms["CMD"] = json.loads(argument)

    def healthcheck(self, stage: Stage, argument: str) -> None:
        stage.exec_forms["HEALTHCHECK"] = json.loads(argument.partition("CMD ")[2])


def make_context(context: Path) -> None:
    """What .dockerignore lets through of the project."""
    for line in (PROJECT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            allowed, place = PROJECT / line[1:], context / line[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            if allowed.is_dir():
                shutil.copytree(allowed, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(allowed, place)


def make_base(base: Path) -> None:
    """Debian 12 with Python 3.11 as `python`, and this machine's way to the network."""
    command = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", base]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (base / "usr/local/bin/python").symlink_to("/usr/bin/python3.11")
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
        shutil.copy(Path("/", name), base / name)


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, argument) pairs, without comments, with continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(name, argument.strip()) for name, _, argument in (line.partition(" ") for line in joined)]


def expand(text: str, values: dict[str, str]) -> str:
    """Replaces $NAME and ${NAME}; a name without a value becomes nothing."""
    return re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], ""), text)


def size(folder: Path) -> int:
    """Bytes on disk."""
    return int(subprocess.check_output(["du", "-sx", "--block-size=1", folder], text=True).split()[0])


def main() -> None:
    """Replays, measures and tries the image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new folder for the stages")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("command", nargs="*", help="command to run in the image, after --")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    make_context(options.folder / "context")
    replay = Replay(options.folder.absolute(), dict(setting.split("=", 1) for setting in options.build_arg))
    for name, argument in instructions((PROJECT / "Dockerfile").read_text()):
        print(f"==> {name} {argument}", flush=True)
        replay.carry_out(name, argument)

    final = replay.stage
    forms = final.exec_forms
    megabytes = [round(size(path) / 1e6) for path in (final.root, replay.folder / "base")]
    print(f"size: {megabytes[0]} MB, of which the base is {megabytes[1]} MB")
    commands = {"HEALTHCHECK": forms["HEALTHCHECK"], "CMD": forms["ENTRYPOINT"] + forms["CMD"]}
    if options.command:
        commands["command"] = forms["ENTRYPOINT"] + options.command
    for title, command in commands.items():
        print(f"==> {title}: {' '.join(command)}", flush=True)
        if status := final.run(command, {}):
            sys.exit(f"exit status {status} of {title}")
    print("replayed; delete the folder when done")


if __name__ == "__main__":
    main()
