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
    """A peer's verified datagram came from another address than its link has (shm/links_keys.py)."""
    GAP = lib.MP_PUNT_GAP
    """Missing datagrams of a stream (shm/repair.py)."""
    FORGERY = lib.MP_PUNT_FORGERY
    """A peer received numbers under this node's key that this node has not used (shm/links_keys.py)."""
