"""A node's control plane: directory, links, addresses and the engines that decide routes."""
