"""Keys: the network key's file, the rotation of a node's sender key, the rollover of the network key."""
