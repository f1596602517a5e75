package configs

import (
	"fmt"
	"reflect"
	"time"

	"go.yaml.in/yaml/v3"
)

// shape is what the decoder knows of a section's type. The blank section is made once and copied, which shares its lists
// between copies: a Config is immutable once loaded, and decoding replaces a list rather than writing into it.
func (d *decoder) shape(t reflect.Type) shape {
	if s, ok := d.shapes[t]; ok {
		return s
	}
	s := shape{fields: fieldsOf(t), blank: reflect.New(t).Elem()}
	for _, f := range s.fields {
		v := s.blank.Field(f.index)
		switch {
		case f.hasDefault:
			if err := setDefault(v, f); err != nil {
				d.add(0, 0, f.name, err.Error())
			}
		case v.Kind() == reflect.Struct && isSection(f.typ):
			v.Set(d.shape(f.typ).blank)
		}
	}
	d.shapes[t] = s
	return s
}

// blank is a pointer to a new value of the type, its defaults filled in.
func (d *decoder) blank(t reflect.Type) reflect.Value {
	p := reflect.New(t)
	if isSection(t) {
		p.Elem().Set(d.shape(t).blank)
	}
	return p
}

// setDefault sets v to what the default tag of its field says, in the words of the config file.
func setDefault(v reflect.Value, f field) error {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(f.def), &doc); err != nil || len(doc.Content) != 1 {
		return fmt.Errorf("the default %q in the program is not YAML (%v): report this", f.def, err)
	}
	d := newDecoder(newReport("default"), func(string) (string, bool) { return "", false }, &doc)
	d.value(doc.Content[0], v, f, f.name)
	if err := d.result(); err != nil {
		return fmt.Errorf("the default %q in the program is wrong (%w): report this", f.def, err)
	}
	return nil
}

// fillFleet fills in the defaults that depend on more than one key.
func fillFleet(c *Config, r *report) {
	if len(c.Regions) == 0 {
		c.Regions = map[string]Region{"local": {}}
	}
	for name, z := range c.DNS.Zones {
		if !r.written(join(join("dns.zones", name), "min_ttl")) {
			z.MinTTL = max(Duration(z.TTL.D().Truncate(4*time.Second)/4), Duration(time.Second))
			c.DNS.Zones[name] = z
		}
	}
	c.Shutdown.DNSWaitSet = r.written("shutdown.dns_wait")
	if !c.Shutdown.DNSWaitSet {
		for _, z := range c.DNS.Zones {
			c.Shutdown.DNSWait = max(c.Shutdown.DNSWait, z.TTL)
		}
		c.Shutdown.DNSWait = min(c.Shutdown.DNSWait, Duration(time.Hour))
	}
}

// fillHomes makes every region in which a service has a pool a home of its users, where the config names none.
func fillHomes(c *Config, s *Service) {
	if s.Affinity == nil || s.Affinity.Regions != nil {
		return
	}
	s.Affinity.Regions = map[string]int{}
	for region := range c.Regions {
		_, own := s.Pools[region]
		if _, any := s.Pools[Any]; own || any {
			s.Affinity.Regions[region] = 1
		}
	}
}

// fillRoutes gives a service without routes the one for everything, and each route without a cache policy the one that
// follows the responses' own headers.
func (d *decoder) fillRoutes(s *Service) {
	if s.Routes == nil {
		s.Routes = []Route{d.blank(reflect.TypeFor[Route]()).Elem().Interface().(Route)}
	}
	for i := range s.Routes {
		if s.Routes[i].Cache == nil {
			s.Routes[i].Cache = &RouteCache{}
		}
	}
}
