"""The router side of IGMP and MLD on the virtual link, as a sans-IO core: see README.md and router.py."""
