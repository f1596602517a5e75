package routing

// around is, for each cell of a grid over the Earth, the order of the regions by their distance from its middle: nearly the
// order that a client there sees, so that little is left to sort.
type around struct {
	orders [aroundRows * aroundColumns][]uint8
}

const (
	aroundRows    = 12
	aroundColumns = 24
)

// newAround makes the grid; nil for fleets of more than stackRegions.
func newAround(at []vector) *around {
	if len(at) > stackRegions {
		return nil
	}
	a := new(around)
	all := make([]uint8, len(at)*len(a.orders))
	cosines, order := make([]float64, len(at)), make([]uint8, len(at))
	for i := range order {
		order[i] = uint8(i)
	}
	for cell := range a.orders {
		lat := (float64(cell/aroundColumns)+0.5)*180/aroundRows - 90
		lon := (float64(cell%aroundColumns)+0.5)*360/aroundColumns - 180
		middle := Point{lat, lon, true}.vector()
		for i := range at {
			cosines[i] = middle.dot(at[i])
		}
		for n, r := range order { // each cell begins with its neighbour's order
			for ; n > 0 && cosines[order[n-1]] < cosines[r]; n-- {
				order[n] = order[n-1]
			}
			order[n] = r
		}
		a.orders[cell], all = all[:len(at):len(at)], all[len(at):]
		copy(a.orders[cell], order)
	}
	return a
}

// of is the order for a place; nil where there is none.
func (a *around) of(p Point) []uint8 {
	if a == nil || !p.Located {
		return nil
	}
	row := int((p.Lat + 90) * (aroundRows / 180.0))
	column := int((p.Lon + 180) * (aroundColumns / 360.0))
	return a.orders[min(max(row, 0), aroundRows-1)*aroundColumns+min(max(column, 0), aroundColumns-1)]
}
