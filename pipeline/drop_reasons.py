"""Drop reasons and counters of the Python side, each declared once with its meaning.

The counters and drop reasons of the C stages are declared in mp_counter.h.  Every word below is a key of `show
counters`, a label of a metric and the `reason` of a log line, so its counter exists from zero.
"""

from __future__ import annotations

import enum
from typing import Self


class _Word(enum.StrEnum):
    """A word that users see, with its meaning in `text`."""

    text: str

    def __new__(cls, word: str, text: str) -> Self:
        """Attach the meaning to the word."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.text = text
        return member


class MembershipCounter(_Word):
    """Counters of the membership router: traffic, then the reasons for which a packet or a record is dropped."""

    QUERIES_SENT = "queries_sent", "queries sent to this host"
    QUERIES_RECEIVED = "queries_received", "queries received from other routers"
    REPORTS_RECEIVED = "reports_received", "reports and leaves received"

    IP_TRUNCATED = "ip_truncated", "packet shorter than its headers or its length field"
    IP_VERSION = "ip_version", "neither IPv4 nor IPv6"
    IP_HEADER = "ip_header", "header length or order of extension headers not valid"
    IP_CHECKSUM = "ip_checksum", "wrong IPv4 header checksum"
    IP_FRAGMENT = "ip_fragment", "a fragment"
    IP_OPTIONS = "ip_options", "options longer than their header"
    IGMP_TRUNCATED = "igmp_truncated", "IGMP message shorter than its type or its counts require"
    IGMP_CHECKSUM = "igmp_checksum", "wrong IGMP checksum"
    IGMP_QUERY_LENGTH = "igmp_query_length", "IGMP query with the length of no version"
    IGMP_QUERY_SOURCES = "igmp_query_sources", "IGMP query with sources but no group"
    IGMP_TTL = "igmp_ttl", "IGMP with a TTL other than 1"
    IGMP_ROUTER_ALERT = "igmp_router_alert", "IGMPv2 or IGMPv3 without Router Alert"
    IGMP_SOURCE = "igmp_source", "IGMP from an address that no host can have"
    MLD_TRUNCATED = "mld_truncated", "MLD message shorter than its type or its counts require"
    MLD_CHECKSUM = "mld_checksum", "wrong MLD checksum"
    MLD_QUERY_LENGTH = "mld_query_length", "MLD query with the length of no version"
    MLD_QUERY_SOURCES = "mld_query_sources", "MLD query with sources but no group"
    MLD_HOP_LIMIT = "mld_hop_limit", "MLD with a hop limit other than 1"
    MLD_ROUTER_ALERT = "mld_router_alert", "MLD without Router Alert"
    MLD_SOURCE = "mld_source", "MLD from an address that is not link-local"
    UNKNOWN_IGNORED = "unknown_ignored", "type that is not a membership message"
    REPORT_RATE = "report_rate", "more group records than the limit"
    OWN_QUERY_IGNORED = "own_query_ignored", "query of this node that came back"
    QUERY_VERSION_MISMATCH = "query_version_mismatch", "query of another version of the protocol"
    OLDER_VERSION_IGNORED = "older_version_ignored", "report of an older version, with older_hosts = false"
    QUERY_QUEUE_FULL = "query_queue_full", "query for which the queue has no room"
    SSM_IGNORED = "ssm_ignored", "any-source membership of a source-specific group (RFC 4604)"
    GROUP_IGNORED = "group_ignored", "not a group that has members"
    COMPATIBILITY_IGNORED = "compatibility_ignored", "record that an older version of the protocol does not know"
    GROUPS_LIMIT = "groups_limit", "no room for another group"
    SOURCE_IGNORED = "source_ignored", "source that is not a unicast address"
    SOURCES_LIMIT = "sources_limit", "no room for another source"


class MessageRefusal(_Word):
    """Reasons for which a message from a peer's control process is refused.

    All but the last four are protocol violations: the connection is cut off.  An engine of another package returns its
    own word, which is counted as well.
    """

    PROTOCOL_VERSION = "protocol_version", "message of another version of the protocol"
    MESSAGE_MALFORMED = "message_malformed", "not a message, or a value out of its bounds"
    MESSAGE_TOO_LONG = "message_too_long", "message longer than the limit"
    PARTS = "parts", "not a message of one part"
    RECORD_UNSEALED = "record_unsealed", "node record with a sender key where this node has none, or without one"
    CERTIFICATE_MALFORMED = "certificate_malformed", "not a certificate, or one with a wrong signature"
    REVOCATIONS_MALFORMED = "revocations_malformed", "not a revocation list, or one with a wrong signature"
    RECORD_SIGNATURE = "record_signature", "node record that its node has not signed, or keys that it does not name"
    SEAL = "seal", "message that its sender has not sealed for this node"
    IDENTITY = "identity", "message without an identity in the name of a node that has one"
    FLOOD_MALFORMED = "flood_malformed", "not a message of the engine flood"
    MESH_MALFORMED = "mesh_malformed", "not a message of the engine mesh"
    NEMO_MALFORMED = "nemo_malformed", "not a message of the engine nemo"
    REPLAY = "replay", "sealed message that was received before"
    RECORD_ENDPOINT = "record_endpoint", "record or message with an endpoint that no peer can have"
    DIAL = "dial", "connection put off: too many endpoints have not answered"
    MESSAGE_RATE = "message_rate", "message beyond its sender's budget of control's time, with no room to wait"
