// Package geo finds where a client is: an address in, a point and a country out, from a MaxMind database file.
//
// Its neighbours: package gateway opens one DB from dns.geoip and asks it on behalf of routing (distance, see
// routing.Client) and of the proxy (X-Client-Country). It knows nothing of regions. GeoIP2 and GeoLite2 City databases
// give both, Country databases only the country, and any database of the same shape will do (keys country.iso_code,
// location.latitude and location.longitude).
package geo
