"""A node's control plane: sessions with peers, the directory, link indices, address owners and its engine."""
