// Package homes finds the region where a user's data lives: the home that requests with the user's key are served in, by a
// consistent hash over the regions, by a lookup service, or by an operator's pin; and it moves users from one hash ring to
// another a few at a time, while both are readable.
//
// Its neighbours: gateway/proxy asks Find and sends the request there; package gateway makes a Directory for each service
// that has an affinity, and hands it the registers (Move, Pin) that operators set.
//
// # Who moves when
//
// A migration has two rings: the one that the config calls regions and the one that it calls next. A user whose home is the
// same in both stays. Each other one has a place between 0 and 1 by a hash of its key, and has moved once the migration's
// share is past that place. The share grows evenly from where it was to where the operator wants it, so every node knows
// the moment of each user's move beforehand, by the register and its clock alone: nodes agree without asking each other.
//
// # What a moving user sees
//
// Reads go to the home of the moment; what the new home does not have (404) is asked of the old one. Writes in the seconds
// around the user's moment (Options.Handover before and after, in which clocks may disagree and the last writes to the old
// home are on their way) wait until the moment is over, and go to the new home. Nothing is refused.
//
// # Order of what decides
//
// A pin, then the lookup service where there is one, then the ring. A lookup service that fails leaves what it said last in
// force for a while; of a user that nothing is known of, reads go anywhere and writes are refused, since a write in the
// wrong place is worse than one that the client repeats.
package homes
