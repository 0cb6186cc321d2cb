"""Run the steps of deploy/Dockerfile without Docker, start the node they make and ask its health.

Each stage begins as an empty folder and an empty environment. /usr of this machine, and the Python
that runs this script, stand for the base image. Steps are run under `chroot` in namespaces of their
own, so that nothing of this machine is changed. The node runs as in deploy/compose.yaml: as the
user of the image, on a read-only file system with a volume and /tmp, and without a network.

    sudo python3.13 scripts/check_image.py [--scan RAPID.dcm]

Needs Linux, root and `unshare` (util-linux). With --scan the scan is sent to the node by dcmtk's
storescu, and the restored one is awaited by its storescp.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
SYSTEM = ("usr", "bin", "sbin", "lib", "lib64")
OF_ETC = ("resolv.conf", "nsswitch.conf", "ssl", "ca-certificates", "pip.conf")

# Arguments: seconds, health check, node...; the scan and what comes back lie in /tmp.
START = """
"${@:3}" & node=$!
for _ in $(seq "$1"); do sleep 1; kill -0 $node || exit 1; sh -c "$2" 2>/tmp/unhealthy && break; done
sh -c "$2" || exit 1
if [ -e /tmp/scan.dcm ]; then
  /usr/bin/storescp -od /tmp/back -aet ORTHANC 4242 & archive=$!
  /usr/bin/storescu -aet ORTHANC -aec RBS orthanc 11112 /tmp/scan.dcm || exit 1
  for _ in $(seq "$1"); do sleep 1; ls /tmp/back/* 2>/dev/null && break; done
  kill $archive; ls /tmp/back/* >/dev/null || exit 1
fi
kill -TERM $node; wait $node
"""


@dataclass
class Stage:
    """A stage of the image.

    Attributes:
        root: Folder that becomes its file system.
        python: Folder of the Python that runs this script.
        workdir: Current folder of the next step.
        environment: Variables of the next step, and of the node.
        user: Numbers of user and group of the next step, and of the node.
        settings: The last ENTRYPOINT, CMD and HEALTHCHECK.
    """

    root: Path
    python: Path
    workdir: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    settings: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environment["PATH"] = f"{self.python}/bin:/usr/local/bin:/usr/bin:/bin"
        for name in (*SYSTEM, str(self.python)[1:]):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            if Path("/", name).is_symlink():
                (self.root / name).symlink_to(os.readlink(f"/{name}"))
            elif Path("/", name).exists():
                (self.root / name).mkdir(exist_ok=True)
        for name in ("etc", "proc", "dev", "tmp"):
            (self.root / name).mkdir(exist_ok=True)
        (self.root / "tmp").chmod(0o1777)
        for name in OF_ETC:
            if (source := Path("/etc", name)).is_dir():
                shutil.copytree(source, self.root / "etc" / name, symlinks=True)
            elif source.exists():
                shutil.copy(source, self.root / "etc" / name)

    def run(self, command: list[str], *mounts: str, alone: bool = False) -> None:
        """Run a command in the stage; the script ends with it if it fails.

        Args:
            command: The program and its arguments.
            mounts: Commands before it, in its namespaces.
            alone: On a read-only file system without a network.
        """
        binds = [name for name in (*SYSTEM, str(self.python)[1:]) if (self.root / name).is_dir()]
        binds = [name for name in binds if not (self.root / name).is_symlink()]
        whole = f"{self.root} {self.root}"
        before = [f"mount --bind {whole}", *(f"mount --bind -o ro /{b} {self.root}/{b}" for b in binds)]
        before += [f"mount -t proc proc {self.root}/proc", f"mount --rbind /dev {self.root}/dev", *mounts]
        before += [f"mount -o remount,bind,ro {whole}", "ip link set lo up"] if alone else []
        inside = ["chroot", f"--userspec={self.user}", "--groups=", str(self.root), "/usr/bin/env", "-i"]
        inside += [f"{name}={value}" for name, value in self.environment.items()]
        inside += ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self.workdir, *command]
        spaces = ["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        spaces += ["--net"] if alone else []
        script = " && ".join([*before, f"exec {shlex.join(inside)}"])
        path = {"PATH": f"{os.defpath}:/usr/sbin:/sbin"}
        if subprocess.run(["unshare", *spaces, "sh", "-c", script], env=path, check=False).returncode:
            sys.exit(f"failed: {command[0]} ({shlex.join(command[-2:])})")


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Instructions with their arguments, continuation lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n", " ", "\n".join(lines))
    split = [line.partition(" ") for line in text.splitlines() if line.strip()]
    return [(word.upper(), rest.strip()) for word, _, rest in split]


def built(dockerfile: Path, folder: Path, python: Path) -> Stage:
    """The last stage, after all steps."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for word, rest in instructions(dockerfile):
        print(f"{word} {rest}", flush=True)
        if word == "FROM":
            name = rest.partition(" AS ")[2]
            root = folder / (name or "image")
            root.mkdir()
            stage = stages[name or "image"] = Stage(root, python)
            continue
        assert stage, "FROM comes first"
        if word == "RUN":
            stage.run(["/bin/sh", "-c", rest])
        elif word == "COPY":
            copy(rest.split(), stage, stages)
        elif word == "WORKDIR":
            stage.workdir = rest
            (stage.root / rest[1:]).mkdir(parents=True, exist_ok=True)
        elif word == "ENV":
            stage.environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "USER":
            stage.user = rest
        elif word in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
            stage.settings[word] = json.loads(rest[rest.index("[") :])
        elif word not in ("EXPOSE", "VOLUME"):
            sys.exit(f"this script does not know {word}")
    assert stage, "there is no stage"
    return stage


def copy(arguments: list[str], stage: Stage, stages: dict[str, Stage]) -> None:
    """COPY, from another stage or from the files that git knows and .dockerignore does not hide."""
    source = ROOT
    if arguments[0].startswith("--from="):
        source = stages[arguments.pop(0).partition("=")[2]].root
    *names, target = arguments
    shown = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    place = stage.root / Path("/", stage.workdir, target).relative_to("/")
    for name in names:
        path = source / name.removeprefix("/")
        if source == ROOT and f"!{name.rstrip('/')}" not in shown:
            sys.exit(f"COPY {name}: .dockerignore hides it")
        if path.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, place, symlinks=True, dirs_exist_ok=True, ignore=ignore)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)


def started(stage: Stage, folder: Path, scan: Path | None, seconds: int) -> None:
    """Run the node as in compose.yaml and ask its health."""
    volume, temporary = folder / "volume", folder / "temporary"
    shutil.copytree(stage.root / "var/lib/rbs", volume)
    owner = (stage.root / "var/lib/rbs").stat()
    os.chown(volume, owner.st_uid, owner.st_gid)
    (temporary / "back").mkdir(parents=True)
    for place in (temporary, temporary / "back"):
        place.chmod(0o1777)
    if scan:
        shutil.copy(scan, temporary / "scan.dcm")
        (temporary / "scan.dcm").chmod(0o644)
    (stage.root / "etc/rbs").mkdir(parents=True, exist_ok=True)
    shutil.copy(DEPLOY / "container.toml", stage.root / "etc/rbs/node.toml")
    (stage.root / "etc/hosts").write_text("127.0.0.1 localhost orthanc\n")
    mounts = (
        f"mount --bind {volume} {stage.root}/var/lib/rbs",
        f"mount --bind {temporary} {stage.root}/tmp",
    )
    healthy = shlex.join(stage.settings["HEALTHCHECK"])
    node = [*stage.settings["ENTRYPOINT"], *stage.settings["CMD"]]
    stage.run(["/bin/bash", "-c", START, "start", str(seconds), healthy, *node], *mounts, alone=True)


def main() -> None:
    """Build, measure, start."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scan", type=Path, help="rapid scan to send through the node, by dcmtk")
    parser.add_argument("--seconds", type=int, default=120, help="patience with the node (default: 120)")
    args = parser.parse_args()
    if os.geteuid() or not shutil.which("unshare"):
        sys.exit("this needs root and unshare (util-linux)")
    with tempfile.TemporaryDirectory() as name:
        stage = built(DEPLOY / "Dockerfile", Path(name), Path(sys.base_prefix))
        (packages,) = (stage.root / "opt/rbs/lib").glob("python3.*/site-packages")
        size = sum(path.stat().st_blocks * 512 for path in packages.rglob("*") if not path.is_symlink())
        started(stage, Path(name), args.scan, args.seconds)
        print(f"site-packages: {size / 1e6:.0f} MB; the node started, was healthy and stopped")


if __name__ == "__main__":
    main()
