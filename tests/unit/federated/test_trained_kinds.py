"""What sites train together is read back as it was written."""

from small_cohort import net

from rbs.federated.networks import RESTORERS, kind_of


def test_a_restorer_that_enlarges_is_read_back(tmp_path):
    restorer, file = net(scale=2), tmp_path / RESTORERS.file
    assert kind_of(restorer) is RESTORERS
    RESTORERS.save(file, restorer, {})
    assert RESTORERS.read(file).spec() == restorer.spec()
