package healthcheck

import "landfall/routing"

// PoolState joins what a region's live nodes report of their pool for a service: Up when any of them finds it up, Down
// when there are reports and all of them say down, else Unknown. One node that can't reach the origins (its own link may be
// at fault) takes nothing down.
func PoolState(reports []routing.State) routing.State {
	down := 0
	for _, s := range reports {
		switch s {
		case routing.Up:
			return routing.Up
		case routing.Down:
			down++
		}
	}
	if down > 0 && down == len(reports) {
		return routing.Down
	}
	return routing.Unknown
}
