"""Kinds of punts: packets and events that the stages hand to control."""

from __future__ import annotations

import enum

from pipeline.shm._native import lib


class PuntKind(enum.IntEnum):
    """Kind of a punt (enum mp_punt_kind)."""

    MEMBERSHIP = lib.MP_PUNT_MEMBERSHIP
    """An IGMP or MLD packet."""
    SOURCE = lib.MP_PUNT_SOURCE
    """First packet of a flow that no forwarding entry covers."""
    ENDPOINT = lib.MP_PUNT_ENDPOINT
    """An endpoint of a peer has answered a probe (shm/links_keys.py)."""
    GAP = lib.MP_PUNT_GAP
    """Missing datagrams of a stream (shm/repair.py)."""
    FORGERY = lib.MP_PUNT_FORGERY
    """A peer received numbers under this node's key that this node has not used (shm/links_keys.py)."""
    CANDIDATE = lib.MP_PUNT_CANDIDATE
    """A peer's verified probe or echo came from an endpoint that its link does not have (shm/links_keys.py)."""
