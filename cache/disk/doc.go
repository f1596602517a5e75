// Package disk keeps records of bytes in a bounded log of files, for package cache, which knows what is in them. It knows
// nothing of HTTP.
//
// Records are appended to a segment; when it is full a new one begins, and when all together exceed the bound the oldest
// segment goes, with what is in it. The index is in memory: 40 bytes and a map's place a record. What a segment holds is
// written beside it when it is full, so that a million records are known again in about a second; a segment that was not
// finished, because the process was killed, is read record by record.
//
// Nothing is believed that the disk says: the head of each record and its body have checksums over all their bytes and
// the place they were written to, and what doesn't match is not there. Nothing is synced: a killed process loses what was
// queued, a lost machine also what the kernel held, and both read as torn records.
//
// Writing happens behind, from a queue bounded in bytes. When the disk fails or is full, nothing is written for a while,
// what is replaced meanwhile is forgotten rather than served in its old form, and OnState tells. A read that takes too
// long is given up, so that a disk that hangs costs misses.
package disk
