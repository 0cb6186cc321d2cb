"""Training across hospitals on Flower: weights and counts travel, scans stay.

The settings of Flower's telemetry are read when it is imported, so they are made here: nothing
but the messages of a federation leaves a machine.
"""

import os

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

NAME = "[A-Za-z0-9_-]{1,40}"
"""Pattern of the names of sites."""
