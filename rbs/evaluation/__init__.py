"""How good a restoration is: metrics, their ceilings, the classical peers and the table of all of them."""
