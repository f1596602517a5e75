// Package compress negotiates content codings with clients and compresses the responses of origins.
//
// It sits between the cache (above) and the fetch from an origin (below), so that the compressed variants are what is
// stored: a cache hit costs no compression. Package gateway/proxy calls it for each fetch, in this order:
//
//	coding := c.Negotiate(request.Header["Accept-Encoding"]) // part of the cache key
//	// ... set Accept-Encoding of the request towards the origin to coding, or remove it when coding is "" ...
//	c.PrepareRequest(out.Header)
//	resp = c.Response(resp, coding)
//
// The origin is asked for that one coding, so an origin that compresses by itself may; what it has encoded passes
// through untouched.
//
// # What is compressed
//
// A response is eligible when its media type is in Options.Types, its length is unknown or at least Options.MinSize,
// and nothing forbids it: a Content-Encoding of its own, Content-Range, Cache-Control: no-transform, a status without a
// body of its own (1xx, 204, 205, 206, 304), text/event-stream, application/grpc. An eligible response always gets
// Vary: Accept-Encoding, in the identity variant too. A response of unknown length is compressed whatever its size
// turns out to be, since waiting for enough of it would hold a slow stream back.
//
// # Entity tags
//
// "x" becomes "x-gzip", "x-br" or "x-zstd", weak tags likewise, since each coding is a representation of its own
// (RFC 9110 section 8.8.3.3). On the way to the origin the suffix is taken off again: see Compressor.PrepareRequest.
//
// # Recoding
//
// What is stored in one coding that was applied here, or in none, becomes another by Compressor.Recode, without the origin:
// the mark HeaderCoded tells the cache which those are.
//
// # Memory
//
// A live encoder holds about 1.1 MiB (gzip), 1.8 MiB (zstd) or 1.2 to 1.7 MiB (br): BenchmarkEncoderMemory.
// Options.MaxEncoders bounds how many live at once; past it responses stay as they are and are counted.
package compress
