// Package gateway is a node: it builds the parts from a configuration, starts, reloads and stops them in order, and owns
// their lifetimes. It is the only package that knows all the others.
//
// What outlives a reload (listeners, mesh, cache, metrics, events) belongs to the Node. What belongs to one configuration
// (the handler chain, its pools, its compressor) is a generation: a reload prepares a whole new one and swaps it in at
// once, or refuses and changes nothing. Requests in flight keep the generation that they began with.
//
// # State
//
// A node tells the fleet its state: joining (not ready yet), serving, draining (an operator moved its traffic away) and
// leaving (it is stopping). Dead is not a state that a node has but what others see. Several times a second the node
// folds what it knows (members, drains, health, reports of other nodes) into one immutable routing.Snapshot, which DNS,
// the proxy, explain and the admin API read.
package gateway
