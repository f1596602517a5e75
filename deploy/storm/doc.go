// Package storm drills overload: steady load goes through a gateway to a model origin whose capacity falls to a third and
// comes back. It measures what clients got of what the origin could do, how much load the gateway added, and how long the
// return took; and the same for other gateways beside it, when they are installed. It knows a gateway by its command line
// and what it serves.
package storm
