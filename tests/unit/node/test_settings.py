"""Settings of a node: what is refused, and in which words."""

from pathlib import Path

import pytest

from rbs.errors import RbsError
from rbs.node.settings import read_settings

FULL = """
ae_title = "RBS_NODE"
host = "0.0.0.0"
port = 104
spool = "spool"
strength = "gentle"
[reading]
views = ["anterior", "posterior"]
velocity = 40
[[peers]]
ae_title = "CAMERA1"
addresses = ["10.1.2.0/24", "camera.example"]
port = 104
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "10.1.1.5"
port = 11112
tls = true
[[destinations]]
name = "web"
url = "https://pacs.example/dicom-web"
headers = "web.txt"
[limits]
object_mib = 8
[tls]
certificate = "cert.pem"
key = "key.pem"
authority = "/etc/ca.pem"
[audit]
file = "audit.jsonl"
site_key_file = "site.key"
"""


def read(tmp_path: Path, text: str):
    path = tmp_path / "node.toml"
    path.write_text(text)
    return read_settings(path)


def test_every_table_is_read_and_paths_are_relative_to_the_file(tmp_path):
    settings = read(tmp_path, FULL)
    assert settings.spool == tmp_path / "spool"
    assert settings.refused_folder == tmp_path / "spool" / "refused"
    assert settings.peers[0].addresses == ("10.1.2.0/24", "camera.example")
    assert [one.name for one in settings.destinations] == ["pacs", "web"]
    assert settings.destinations[1].headers == tmp_path / "web.txt"
    assert str(settings.tls.authority) == "/etc/ca.pem"
    assert settings.limits.object_mib == 8
    assert settings.limits.associations == 16
    assert settings.reading.velocity == 40


def test_the_shortest_settings_serve_the_loopback(tmp_path):
    settings = read(tmp_path, 'spool = "/var/lib/rbs"')
    assert (settings.host, settings.port, settings.peers) == ("127.0.0.1", 11112, ())


def test_they_survive_the_trip_to_the_worker(tmp_path):
    settings = read(tmp_path, FULL.replace('"spool"', '"spool"\ncheckpoint = "mine.onnx"'))
    assert settings.checkpoint == str(tmp_path / "mine.onnx")
    assert type(settings).model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it has no spool; add spool = ..."),
        ('spool = "s"\nwait = 3', "wait is no setting of a node; write wait_s."),
        ('spool = "s"\n[limits]\nrows = 3', "limits.rows is no setting of a node"),
        ('spool = "s"\nport = 70000', "port: input should be less than or equal to 65535; correct it"),
        ('spool = "s"\nae_title = "a\\\\b"', "ae_title: an AE title is 1 to 16 characters"),
        ('spool = "s"\nae_title = "12345678901234567"', "ae_title: string should have at most 16"),
        ('spool = "s"\nhost = "0.0.0.0"', r"host 0.0.0.0 can be reached from outside, so it needs \[\[peers"),
        ('spool = "s"\nhost = "node.example"', "can be reached from outside"),
        ('spool = "s"\nstandard_velocity = 0', "standard_velocity: a scan velocity is 1 to 1000 cm/min"),
        ('spool = "s"\nwait_s = nan', "wait_s: input should be"),
        (
            'spool = "s"\n[[peers]]\nae_title = "A"\naddresses = ["10.1.2.3/24"]',
            r"peers\[1\].addresses\[1\]: .*host bits",
        ),
        (
            'spool = "s"\n[[destinations]]\nname = "p"\nhost = "h"',
            r"destinations\[1\]: a destination has ae_title, host",
        ),
        (
            'spool = "s"\n[[destinations]]\nname = "p"\nurl = "http://h"\nport = 1',
            "with a url has no ae_title",
        ),
        ('spool = "s"\n[[destinations]]\nname = "p"\nurl = "http://me:secret@h"', "should match pattern"),
        (
            'spool = "s"\n' + '[[destinations]]\nname = "p"\nurl = "http://h"\n' * 2,
            "two destinations have the same name",
        ),
        (
            'spool = "s"\n[[destinations]]\nname="p"\nae_title="A"\nhost="h"\nport=1\ntls=true',
            r"needs the certificates",
        ),
        ("spool = ", "it is not valid TOML: .*; correct that line"),
    ],
)
def test_a_wrong_setting_is_refused_in_a_sentence_that_names_it(tmp_path, text, fault):
    with pytest.raises(RbsError, match=fault) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "node.toml"))
    assert "secret" not in str(error.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(RbsError, match=r"there is no such settings file; copy deploy/node.toml"):
        read_settings(tmp_path / "none.toml")
