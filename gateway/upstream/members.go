package upstream

import (
	"slices"
)

// Member is an origin of a pool as it is configured or was found.
type Member struct {
	URL    string
	Weight int // 1 when it is 0 or less
}

// members are the origins of a pool at one moment. Immutable: a change makes new ones, and requests under way go on with
// those that they began with.
type members struct {
	list   []*origin
	byName map[string]*origin
	even   bool     // all weights are equal
	turns  []uint16 // round robin: whose turn it is, as indexes of list
	table  []uint16 // hash: Maglev's table, as indexes of list
}

// maxTurns bounds the schedule of round robin, and with it how finely weights are kept.
const maxTurns = 4096

func newMembers(list []*origin, balance balance) *members {
	m := &members{list: list, byName: make(map[string]*origin, len(list)), even: true}
	weights := make([]int, len(list))
	for i, o := range list {
		m.byName[o.name] = o
		weights[i] = int(o.weight.Load())
		m.even = m.even && weights[i] == weights[0]
	}
	switch balance {
	case roundRobin:
		m.turns = smoothTurns(weights)
	case byHash:
		names := make([]string, len(list))
		for i, o := range list {
			names[i] = o.name
		}
		m.table = maglev(names, weights, maglevSize)
	}
	return m
}

// smoothTurns is the schedule of nginx's smooth weighted round robin: over its length each index comes as often as its
// weight says, spread as evenly as can be.
func smoothTurns(weights []int) []uint16 {
	if len(weights) == 0 {
		return nil
	}
	weights = slices.Clone(weights)
	divisor, total := 0, 0
	for _, w := range weights {
		divisor = gcd(divisor, w)
		total += w
	}
	divisor = max(divisor, (total+maxTurns-1)/maxTurns)
	total = 0
	for i := range weights {
		weights[i] = max(weights[i]/divisor, 1)
		total += weights[i]
	}
	turns := make([]uint16, 0, total)
	credit := make([]int, len(weights))
	for range total {
		best := 0
		for i, w := range weights {
			credit[i] += w
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= total
		turns = append(turns, uint16(best))
	}
	return turns
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// maglevSize is the number of entries of a table: a prime, a hundred times as many as a pool commonly has origins.
const maglevSize = 16381

// maglev fills the lookup table of Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4): each name walks its own
// permutation of the table and takes the next free entry in turn, as often as its weight says beside the heaviest. When
// a name comes or goes, few entries of the others change. The table is the same on every node.
func maglev(names []string, weights []int, size int) []uint16 {
	if len(names) == 0 {
		return nil
	}
	// The order of the list must not matter.
	order := make([]int, len(names))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if names[a] < names[b] {
			return -1
		}
		return 1
	})
	heaviest := slices.Max(weights)
	offset, skip := make([]int, len(names)), make([]int, len(names))
	taken, due := make([]int, len(names)), make([]int, len(names))
	for i, name := range names {
		offset[i] = int(HashKey(name, 1) % uint64(size))
		skip[i] = int(HashKey(name, 2)%uint64(size-1)) + 1
	}
	table := make([]uint16, size)
	const free = ^uint16(0)
	for i := range table {
		table[i] = free
	}
	for left := size; ; {
		for _, i := range order {
			due[i] += weights[i]
			if due[i] < heaviest {
				continue
			}
			due[i] -= heaviest
			at := (offset[i] + taken[i]*skip[i]) % size
			for table[at] != free {
				taken[i]++
				at = (offset[i] + taken[i]*skip[i]) % size
			}
			table[at] = uint16(i)
			taken[i]++
			if left--; left == 0 {
				return table
			}
		}
	}
}

// HashKey is a 64-bit hash of a key, the same on every node and in every version: FNV-1a with a mixed end.
func HashKey(key string, seed uint64) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := offset ^ seed*prime
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * prime
	}
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}
