"""Settings of a node: one TOML file, checked before anything starts."""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic import ValidationInfo as Info

from rbs.errors import RbsError
from rbs.inference.strengths import DEFAULT, Strength
from rbs.scans.ranges import VELOCITY
from rbs.scans.scan import STANDARD_VELOCITY, View
from rbs.weights.shipped import NAME

MIB = 2**20
"""Bytes of the unit of limits."""


def _absolute(path: Path, info: Info) -> Path:
    """A path relative to the folder of the settings file."""
    return ((info.context or {}).get("folder", Path()) / path.expanduser()).resolve()


def _title(text: str) -> str:
    if not text.strip() or "\\" in text or not (text.isascii() and text.isprintable()):
        raise ValueError("an AE title is 1 to 16 characters of ASCII without a backslash")
    return text.strip()


def _address(text: str) -> str:
    if "/" in text:
        ipaddress.ip_network(text)
    return text


def _velocity(value: float) -> float:
    if value not in VELOCITY:
        raise ValueError(f"a scan velocity is {VELOCITY}")
    return value


Title = Annotated[str, Field(max_length=16), AfterValidator(_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
AnyPort = Annotated[int, Field(ge=0, le=65535)]
File = Annotated[Path, AfterValidator(_absolute)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Velocity = Annotated[float, AfterValidator(_velocity)]
Count = Annotated[int, Field(ge=1)]


class _Table(BaseModel):
    """A table of the file: a key that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Reading(_Table):
    """What files of this department do not say.

    Attributes:
        views: View of each frame, in frame order.
        energy_window: Counted from 1, of files with several.
        velocity: Of the bed, in cm/min.
    """

    views: tuple[View, ...] | None = None
    energy_window: Count | None = None
    velocity: Velocity | None = None


class Peer(_Table):
    """A sender that is let in.

    Attributes:
        ae_title: Its AE title.
        addresses: Hosts and networks ("10.1.2.0/24") it may call from; none: from any.
        port: Where it takes reports of storage commitment, at the address it calls from.
    """

    ae_title: Title
    addresses: tuple[Annotated[str, AfterValidator(_address)], ...] = ()
    port: Port | None = None


class Destination(_Table):
    """A receiver of restored scans: by C-STORE, or by DICOMweb (STOW-RS) if it has a URL.

    Attributes:
        name: Names it in tables and logs.
        ae_title: Its AE title.
        host: Its host.
        port: Its port.
        tls: Use the certificates of the table `tls`.
        url: Of the DICOMweb service, up to and without `/studies`.
        headers: File of HTTP headers, a `Name: value` a line: credentials stay out of the settings.
    """

    name: Annotated[str, Field(min_length=1, max_length=64)]
    ae_title: Title | None = None
    host: str | None = None
    port: Port | None = None
    tls: bool = False
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
    headers: File | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [value is not None for value in (self.ae_title, self.host, self.port)]
        if self.url is None and not all(given):
            raise ValueError("a destination has ae_title, host and port, or a url")
        if self.url is not None and (any(given) or self.tls):
            raise ValueError("a destination with a url has no ae_title, host, port or tls")
        if self.url is None and self.headers:
            raise ValueError("headers go with a url")
        return self


class Limits(_Table):
    """What a sender may use.

    Attributes:
        object_mib: Largest instance, in MiB.
        associations: At a time.
        per_minute: Instances a minute from one sender.
        spool_mib: Of all scans in the spool, in MiB.
        reserve_mib: Room that is left on the disk, in MiB.
        idle_s: Seconds without a message after which an association is ended.
    """

    object_mib: Count = 64
    associations: Count = 16
    per_minute: Count = 240
    spool_mib: Count = 20_000
    reserve_mib: Annotated[int, Field(ge=0)] = 1024
    idle_s: Seconds = 30


class Retries(_Table):
    """Sending again.

    Attributes:
        first_s: Seconds after the first failure; doubled after each further one.
        longest_s: The most seconds between two.
        give_up_h: Hours after which a delivery is left to `rbs node retry`.
    """

    first_s: Seconds = 5
    longest_s: Seconds = 600
    give_up_h: Seconds = 72


class Tls(_Table):
    """Certificates, in PEM; the other side must show one of the same authority.

    Attributes:
        certificate: Of this node.
        key: Its private key, without a passphrase.
        authority: Certificates of the authority that signed those of peers and destinations.
    """

    certificate: File
    key: File
    authority: File


class AuditLog(_Table):
    """The audit log.

    Attributes:
        file: JSON lines are added to it.
        site_key_file: A secret; UIDs are hashed with it.
    """

    file: File
    site_key_file: File


class Settings(_Table):
    """All settings of a node.

    Attributes:
        ae_title: Of this node.
        host: Address it listens at.
        port: TCP port it listens at; 0: any free one.
        spool: Folder of the queue and its scans.
        wait_s: Seconds a one-view scan waits for the other view of its acquisition.
        keep_days: Days for which sent scans are kept in the spool.
        strength: Of the restoration.
        checkpoint: Weights, or "shipped".
        uncertainty: Send the standard deviation of each restored scan, too.
        standard_velocity: cm/min whose counts are wanted.
        reading: What files do not say.
        memory_mib: Most memory of the process that restores, in MiB. A scan of 1024 x 256 pixels
            takes 800, one of 2048 x 512 pixels 2400.
        job_s: Seconds after which restoring one scan is ended.
        commitment: Answer requests for storage commitment.
        refused: Folder of refused scans; `refused` in the spool by default.
        peers: Senders that are let in. A node that listens at the loopback alone needs none.
        destinations: Receivers of restored scans.
        limits: What a sender may use.
        retries: Sending again.
        tls: Certificates; with them no connection is taken without TLS.
        audit: The audit log.
        monitor_port: Port of the status page at 127.0.0.1.
    """

    ae_title: Title = "RBS"
    host: str = "127.0.0.1"
    port: AnyPort = 11112
    spool: File
    wait_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 120
    keep_days: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 7
    strength: Strength = DEFAULT
    checkpoint: str = NAME
    uncertainty: bool = False
    standard_velocity: Velocity = STANDARD_VELOCITY
    reading: Reading = Reading()
    memory_mib: Count = 3072
    job_s: Seconds = 300
    commitment: bool = False
    refused: File | None = None
    peers: tuple[Peer, ...] = ()
    destinations: tuple[Destination, ...] = ()
    limits: Limits = Limits()
    retries: Retries = Retries()
    tls: Tls | None = None
    audit: AuditLog | None = None
    monitor_port: AnyPort | None = None

    @model_validator(mode="after")
    def _fit_together(self, info: Info) -> Self:
        if self.checkpoint != NAME:
            object.__setattr__(self, "checkpoint", str(_absolute(Path(self.checkpoint), info)))
        if not is_loopback(self.host) and not self.peers:
            raise ValueError(f"host {self.host} can be reached from outside, so it needs [[peers]]")
        names = [destination.name for destination in self.destinations]
        if len(set(names)) < len(names):
            raise ValueError("two destinations have the same name")
        if any(destination.tls for destination in self.destinations) and self.tls is None:
            raise ValueError("a destination with tls needs the certificates of a table [tls]")
        return self

    @property
    def refused_folder(self) -> Path:
        """Folder of refused scans."""
        return self.refused or self.spool / "refused"


def is_loopback(host: str) -> bool:
    """True for a host that only this machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_settings(path: str | Path) -> Settings:
    """Settings of a TOML file; relative paths in it are relative to its folder.

    Raises:
        RbsError: It cannot be read, or a setting is missing, unknown or out of range.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        remedy = "copy deploy/node.toml and name it with --settings"
        raise RbsError("there is no such settings file", file=path, remedy=remedy) from None
    except (OSError, UnicodeDecodeError) as error:
        fault = f"it cannot be read ({getattr(error, 'strerror', None) or 'it is no UTF-8'})"
        raise RbsError(fault, file=path, remedy="check the file") from error
    except tomllib.TOMLDecodeError as error:
        remedy = "correct that line"
        raise RbsError(f"it is not valid TOML: {str(error).lower()}", file=path, remedy=remedy) from None
    try:
        return Settings.model_validate(content, context={"folder": path.absolute().parent})
    except ValidationError as error:
        fault, remedy = _explained(error.errors()[0])
        raise RbsError(fault, file=path, remedy=remedy) from None


def _explained(error: Mapping[str, Any]) -> tuple[str, str]:
    """Fault and remedy of what pydantic refuses; values, which may be secret, are not quoted."""
    where = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in error["loc"])[1:]
    key = str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        near = get_close_matches(key, _KEYS, 1)
        return f"{where} is no setting of a node", f"write {near[0]}" if near else "leave it out"
    if error["type"] == "missing":
        return f"it has no {where}", f"add {key} = ..."
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return (f"{where}: {message}" if where else message), "correct it; docs/node.md describes each setting"


_TABLES = (Settings, Reading, Peer, Destination, Limits, Retries, Tls, AuditLog)
_KEYS = {name for table in _TABLES for name in table.model_fields}
