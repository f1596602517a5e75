package routing

import "fmt"

var reasonNames = [...]string{
	Chosen: "chosen", Farther: "farther", ByWeight: "by_weight", WeightZero: "weight_zero", Unmeasured: "unmeasured",
	DrainedRegion: "drained", NoPool: "no_pool", NoNode: "no_node", PoolDown: "pool_down", AllDownFallback: "all_down_policy",
	Full: "full", FullToo: "full_too", ResidencyPrefers: "residency_prefers", ResidencyForbids: "residency", LaterInOrder: "later_in_order", Explored: "explored",
	ByName:   "by_name",
	DoorDown: "door_down", Returning: "returning",
}

// String is the reason's name, the same in logs, metrics and the API.
func (r Reason) String() string { return reasonNames[r] }

var reasonTexts = [...]string{
	Chosen:           "the best candidate",
	Farther:          "a candidate, but another region is nearer",
	ByWeight:         "as near as the best; weight and the client's hash preferred another",
	WeightZero:       "its weight is 0: used only when no other region is left",
	Unmeasured:       "nobody has measured it yet (or not lately): used only behind regions that are up",
	DrainedRegion:    "an operator drains it",
	NoPool:           "the service has no origins there",
	NoNode:           "none of its nodes is alive and reachable",
	PoolDown:         "its nodes find all of the service's origins there down",
	Full:             "it has more load than it should take: this client is in the share that goes on to the next region with room",
	FullToo:          "it is full, and so is every other region: nobody is refused, the nearest takes them",
	ResidencyPrefers: "residency prefers other regions for this client's country: used only when none of those is left",
	ResidencyForbids: "residency keeps this client's data out of it, whatever happens to the others",
	LaterInOrder:     "a candidate, but the configured order has another first",
	Explored:         "a small share of the clients goes to the runner-up for a while, so that its distance becomes known",
	ByName:           "the client asks by a region's own name, and that region comes first while it will do",
	DoorDown:         "its front door doesn't answer for the service, as a quorum of other regions finds",
	Returning:        "it is coming back: this client is in the share that is let in later",
	AllDownFallback:  "every region looks down and health.all_down names another region",
}

// Text says the reason to a person.
func (r Reason) Text() string { return reasonTexts[r] }

var modeNames = [...]string{Normal: "normal", PanicMode: "panic", LastResort: "last_resort", AllDownMode: "all_down", Unservable: "unservable"}

// String is the mode's name, the same in logs, metrics and the API.
func (m Mode) String() string { return modeNames[m] }

// ModeText says to a person what mode a decision of s was made in and why.
func (s *Snapshot) ModeText(m Mode) string {
	switch m {
	case PanicMode:
		return fmt.Sprintf("panic: more than %g%% of the regions look down, so the observer is suspected and all of them are used", s.Panic*100)
	case LastResort:
		return "last resort: no region is up but drained ones, so those are used"
	case AllDownMode:
		if s.AllDown >= 0 {
			return fmt.Sprintf("every region looks down: health.all_down sends everybody to %s", s.Regions[s.AllDown].Name)
		}
		return "every region looks down: failing open, all of them are used, nearest first"
	case Unservable:
		return "no region has origins for this service"
	}
	return "normal"
}
