"""Tests of the package. The client's log is silent in them."""

import logging

logging.getLogger("relay_client").propagate = False
logging.getLogger("relay_client").addHandler(logging.NullHandler())
