package configs

import (
	"maps"
	"slices"
)

// Any is the name of the pool that serves the regions which have none of their own.
const Any = "any"

// RegionNames lists the regions, sorted.
func (c *Config) RegionNames() []string { return slices.Sorted(maps.Keys(c.Regions)) }

// PoolFor is the pool that serves a service in a region: the region's own, else the one for any region. It reports false
// when the service has neither, or does not exist.
func (c *Config) PoolFor(service, region string) (Pool, bool) {
	s := c.Services[service]
	if s == nil {
		return Pool{}, false
	}
	if own, ok := s.Pools[region]; ok {
		return own, true
	}
	p, ok := s.Pools[Any]
	return p, ok
}
