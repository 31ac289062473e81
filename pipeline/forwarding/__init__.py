"""From routes by node to entries of the forwarding table by link."""
