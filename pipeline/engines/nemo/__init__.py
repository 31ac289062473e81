"""Engine `nemo`: Nemo, resilient peer-to-peer multicast without the cost (Birrer and Bustamante, MMCN 2005).

Each group has one hierarchy of clusters, of the nodes that are members of it or send to it:

    layer 2              ●                      leaders of layer 1's clusters, and so on up to one cluster
    layer 1      ●───────●───────●              leaders of layer 0's clusters
    layer 0    ○─●─○   ○─●─○   ○─●─○            all nodes, in clusters of k … 3k - 1 that are near each other

The leader of the top cluster is the root.  The crew of a cluster is its leader and its co-leaders.

    engine.py      inputs and outputs of all groups        context.py             what all groups of a node share
    group.py       one group: dispatch, periodic work      hierarchy.py           a node's memberships by layer
    leader.py      what a leader does                      cluster_membership.py  one membership: its data and states
    operations.py  split, merge, recentre, hand over       clusters.py            crews, centres, splits as functions
    member.py      views, a dead leader, joining           failure_detector.py    is a suspected node dead?
    join.py        search for a leader to join             rendezvous.py          which node is the root?
    refinement.py  when to look for a closer leader        sources.py             announcements of sources
    forwarding.py  memberships → next hops                 recovery.py            missing packets: Nacks and replies
    routes.py      next hops that have changed             messages.py, options.py, schedule.py, links.py, checkpoint.py

Every object is written by its own methods only.  A Group owns the parts; the parts know the Hierarchy, which knows no
part.  Member calls Leader (a member becomes a leader), never the reverse.

From the paper: clusters, crews of leader and co-leaders, join by descent, leave with successors, heartbeats, grace
period, crew lists, probabilities, the order of the crew, the sender's crew, Nacks to the crew after 2 RTT.

Ours, where the paper is silent or forwarding in C needs it:

  - A stripe is chosen by the stream sequence number, not by each sender's own count: all nodes agree on the tree of a
    packet, and each receives it once (forwarding.py).
  - Packets carry no bitmask of what their sender has: gaps are seen in the stream sequence, also a whole outage of a
    path with the first packet after it.  A Nack goes to the parent in the tree of the packet's stripe.  A node that
    lacks the packet itself replies with the nodes that it would try.  Others are tried only if the parent does not
    reply, so a packet is repaired once for each subtree that was cut off (recovery.py).
  - A node that does not reply to a Nack is probed by its cluster's leader or that leader's successors, and replaced if
    it does not answer the probes: a gap in one stripe is noticed within seconds while the other stripes flow.  If all
    stripes stop, no gap shows: a node probes its leader once a steady stream has stopped for a second or two.  In the
    paper the grace period serves both cases.
  - A leader alone decides which nodes are in its cluster, in versioned views; co-leaders act in forwarding only.  The
    first of the crew that is alive succeeds a dead leader.  It requests the leader's membership above too, which
    reports the death there; the leader's successor there answers.  The rendezvous keeps the place of a dead root for
    its successor for a while.
  - Not every node reaches every other one.  Members leave a successor whose leader is alive for them, before it claims
    the group.  A leader probes the node that a successor wants to replace in its cluster.  A root makes way for another
    one if a node cannot reach it.
  - Stripes that a small crew leaves over are spread so that no node is in the way of all of them (clusters.py), and a
    cluster above layer 0 without a whole crew merges at once, not with 1 %: whole branches would depend on one node.
  - A link that the sessions report down is as good as the grace period: in the daemon that is after 2.5 s.
  - A refinement queries only leaders whose distance is unknown or better than the present one's.
  - A source that is no member has memberships like a member.
  - The missing-packet timer is never below `nack_floor_s`.
"""
