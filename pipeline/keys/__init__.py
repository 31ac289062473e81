"""Keys: identities and certificates of nodes, the network key, the rotation of sender keys."""
