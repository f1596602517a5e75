// Package mesh lets the nodes of a fleet know of each other: who is a member, what each says of itself, whom this node
// can reach and how fast, and the registers (drains, purges) that all of them must agree on.
//
// Three mechanisms, each with the job that it is good at:
//
//	gossip     hashicorp/memberlist over UDP and TCP, encrypted: who exists and at which addresses. Its verdicts are
//	           slow (seconds) and only hints; nothing rests on its broadcasts.
//	beats      a POST to every other node each 250 ms over one warm HTTP/2 connection with mutual TLS, carrying what
//	           the node says of itself both ways. Whether a beat comes back is this node's own verdict on its peer, and
//	           each node tells the others whom it can't reach, so that a quorum can be built from many observers.
//	registers  last writer wins by hybrid logical clock, pushed at once to every live node over the same connection,
//	           written to disk before they are acknowledged, and repaired by comparing digests with each beat.
//
// The soft state (members, reports, reachability) expires; the registers don't depend on it. A node that hears nobody
// keeps what it knows and goes on joining for ever, since memberlist alone never heals a partition that outlasted its
// memory of the dead.
//
// Neighbours: package gateway builds a Mesh, mounts Handler on the peer listener, and turns Members and Registers into
// the snapshot that package routing decides on. This package decides nothing about traffic.
//
// The deciding parts are pure step functions with time passed in (reach, table, clock, meta); the loops around them
// are thin.
package mesh
