// Package ratelimit bounds how often keys may come: the generic cell rate algorithm, on one node or shared by the nodes of
// a fleet. A shared limit is divided by demand: each node tells the others, once a round, how often its busiest keys come,
// and takes of each key's rate the part that its own demand is of all. No request waits for another node.
//
// # What a shared limit holds
//
// While the demand has been steady for three rounds, the fleet lets a key come at its rate and 5% more at most (what nodes
// do not find worth telling), beside one burst. When the demand moves between nodes, each may go on with what it had until
// it hears: for three rounds at most, so that the excess is at most the rate times that and a burst, for each node but one.
// A node that hears nobody gives a key its whole rate: a fleet in two parts lets it come at twice its rate.
package ratelimit
