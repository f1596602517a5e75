// Package mesh lets the nodes of a fleet know of each other: who is a member, what each says of itself, whom this node
// can reach and how fast, and the registers (drains, purges) that all of them must agree on.
//
// Three mechanisms, each with the job that it is good at:
//
//	gossip     hashicorp/memberlist over UDP and TCP, encrypted: who exists and at which addresses. Its verdicts are
//	           slow (seconds) and only hints; nothing rests on its broadcasts.
//	links      one long HTTP/2 stream with mutual TLS to each node of the own region and two of each other, carrying
//	           heartbeats each 250 ms, what the nodes say of themselves, and registers. Whether heartbeats come back is
//	           this node's own verdict on its peer; each node tells the others whom it watches and can't reach, so that
//	           a quorum can be built from many observers.
//	registers  last writer wins by hybrid logical clock, spread at once over the links, written to disk before they are
//	           acknowledged, and repaired by comparing digests with each beat.
//
// The soft state (members, reports, reachability) expires; the registers don't depend on it. A node that hears nobody
// keeps what it knows and goes on joining for ever, since memberlist alone never heals a partition that outlasted its
// memory of the dead.
//
// Neighbours: package gateway builds a Mesh, mounts Handler on the peer listener, and turns Members and Registers into
// the snapshot that package routing decides on. This package decides nothing about traffic.
//
// The protocol is a step machine (core) without clock, network or disk, which the simulator of this package's tests
// drives as Mesh does. README.md tells more, and how to run the simulator.
package mesh
