package admin

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// MaxURL bounds a URL in bytes: a purge of it must fit into one register of the mesh.
const MaxURL = 2048

func (a *API) pools(c *call) (any, error) {
	name := c.PathValue("service")
	if _, err := a.service(name); err != nil {
		return nil, err
	}
	pools, err := a.backend.Pools(name)
	if err != nil {
		return nil, err
	}
	return poolList{Service: name, Pools: pools}, nil
}

// service finds a service by its name.
func (a *API) service(name string) (Service, error) {
	var known []string
	for _, s := range a.backend.Services() {
		if s.Name == name {
			return s, nil
		}
		known = append(known, s.Name)
	}
	return Service{}, NotFound("service", name, known)
}

func (a *API) purgeByID(c *call) (any, error) {
	id := c.PathValue("id")
	result, ok := a.backend.PurgeByID(id)
	if !ok {
		return nil, NotFound("purge", id, nil)
	}
	return result, nil
}

func (a *API) explain(c *call) (any, error) {
	query := c.URL.Query()
	target := query.Get("url")
	if !strings.Contains(target, "://") {
		target = "https://" + target
	}
	u, err := parseTarget(target)
	if err != nil {
		return nil, Invalid("url", err.Error())
	}
	if u.Path == "" {
		u.Path = "/"
	}
	var client netip.Addr
	if text := query.Get("client"); text != "" {
		client, err = netip.ParseAddr(text)
		if err != nil || client.Zone() != "" {
			return nil, Invalid("client", fmt.Sprintf("%q is not an IP address", clip(text, 80)))
		}
	}
	return a.backend.Explain(u.String(), client.Unmap())
}

// parseTarget reads an absolute http or https URL of something that this fleet could serve.
func parseTarget(s string) (*url.URL, error) {
	if len(s) > MaxURL {
		return nil, fmt.Errorf("is longer than %d bytes", MaxURL)
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is not a URL", clip(s, 120))
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%q is not an http or https URL; write it like https://shop.example.com/cart", clip(s, 120))
	case u.Hostname() == "":
		return nil, fmt.Errorf("%q has no host; write it like https://shop.example.com/cart", clip(s, 120))
	case u.User != nil:
		return nil, errors.New("has a user name in it; leave it out")
	case u.Fragment != "" || strings.HasSuffix(s, "#"):
		return nil, fmt.Errorf("%q has a fragment, which no request carries; leave it out", clip(s, 120))
	}
	return u, nil
}
