"""A virtual network on virtual time, in which the daemon's own control-plane cores run.

`cluster` has a few nodes whose data plane models each datagram; tests use it, with the impaired paths of `netem`.
`experiment` has thousands of nodes (`station`) on the delays of an `underlay`; `pipeline simulate` prints its figures.
Both kinds of node share the control plane in `host`.
"""
