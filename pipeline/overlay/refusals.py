"""What a refusal means to the operator: one line each, with the remedy.  It decides nothing."""

from __future__ import annotations

from pipeline.messages import NodeRecord, Refusal, RefusalReason
from pipeline.overlay.events import NoticeKind


def notice_of(refusal: Refusal, own: NodeRecord, refuser: str) -> tuple[NoticeKind, str, str] | None:
    """Return kind, peer and text of the notice about a refusal of this node; None if others cover its reason."""
    match refusal.reason:
        case RefusalReason.PINNED:
            return NoticeKind.NAME_PINNED, refuser, pinned_text(own, refuser)
        case RefusalReason.CERTIFICATE:
            detail = printable(refusal.detail) or "no valid certificate"
            return NoticeKind.CERTIFICATE, refuser, f"{refuser} refuses this node: {detail}"
        case RefusalReason.PROTOCOL:
            return NoticeKind.PROTOCOL, refuser, f"{refuser} refuses this node: {printable(refusal.detail)}"
        case _:
            return None


def pinned_text(own: NodeRecord, refuser: str) -> str:
    """Return the line for a node whose name is pinned to another identity."""
    return (
        f"the name {own.name} is pinned to another identity at {refuser}: bring back this node's identity file, choose "
        f"another --name, or run there: pipeline identity forget {own.name}"
    )


def taken_text(own: NodeRecord, holder: NodeRecord) -> str:
    """Return the line for a node that an older one keeps out."""
    is_clone = holder.public_key == own.public_key
    how = ", with this node's identity: remove the copy of its file" if is_clone else ": choose another --name"
    return f"the name {own.name} is in use by the node at {holder.endpoint}{how}"


def gap_text(record: NodeRecord, own: NodeRecord) -> str:
    """Return the line for a node with which this one has no version of the protocol in common."""
    older, newer = sorted((record, own), key=lambda each: each.protocols)
    old_range, new_range = ("–".join(map(str, sorted(set(each.protocols)))) for each in (older, newer))
    return f"{newer.name} speaks protocol {new_range}, {older.name} {old_range}: upgrade {older.name}"


def printable(text: str) -> str:
    """Return a text of another node without characters that a terminal would act on."""
    return "".join(each if each == "–" or (each.isprintable() and each.isascii()) else "?" for each in text)
