"""Small weights and the command line, for the commands that touch DICOM."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained restorer: a Gaussian filter of 1.5 pixels."""
    from rbs.restorers.checkpoint import save_restorer
    from rbs.restorers.nafnet import NAFNet

    path = tmp_path_factory.mktemp("weights") / "restorer.safetensors"
    net = NAFNet(width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,), sigma_px=1.5)
    save_restorer(path, net, {"spacing_mm": [2.0, 2.6]})
    return path


@pytest.fixture
def rbs(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `rbs ARGUMENT...`: exit status, standard output, standard error."""
    from rbs.cli import main as cli

    def run(*arguments: object) -> tuple[int, str, str]:
        status = cli.main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run
